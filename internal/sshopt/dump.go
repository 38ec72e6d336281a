package sshopt

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The order of -G (dump_client_config, readconf.c of 9.2). Keywords that are newer, and this
// program's own, come after them, and only where they are set.
var (
	dumpStates = [...]keywordID{
		kwAddressFamily, kwBatchMode, kwCanonicalizeFallbackLocal, kwCanonicalizeHostname, kwCheckHostIP,
		kwCompression, kwControlMaster, kwEnableSSHKeysign, kwClearAllForwardings, kwExitOnForwardFailure,
		kwFingerprintHash, kwForwardX11, kwForwardX11Trusted, kwGatewayPorts, kwGSSAPIAuthentication,
		kwGSSAPIDelegateCredentials, kwHashKnownHosts, kwHostbasedAuthentication, kwIdentitiesOnly,
		kwKbdInteractiveAuthentication, kwNoHostAuthenticationForLocalhost, kwPasswordAuthentication,
		kwPermitLocalCommand, kwProxyUseFdpass, kwPubkeyAuthentication, kwRequestTTY, kwSessionType, kwStdinNull,
		kwForkAfterAuthentication, kwStreamLocalBindUnlink, kwStrictHostKeyChecking, kwTCPKeepAlive, kwTunnel,
		kwVerifyHostKeyDNS, kwVisualHostKey, kwUpdateHostKeys, kwEnableEscapeCommandline, kwCanonicalizeMaxDots,
		kwConnectionAttempts, kwForwardX11Timeout, kwNumberOfPasswordPrompts, kwServerAliveCountMax,
		kwServerAliveInterval, kwRequiredRSASize,
	}
	dumpNewer = [...]keywordID{
		kwTag, kwVersionAddendum, kwObscureKeystrokeTiming,
	}
)

// dumper writes the lines of -G.
type dumper struct {
	strings.Builder
	p *parser
}

// Dump returns what -G prints: the final configuration, a keyword and its value on each line. Read
// back by -F, it gives the same.
func (o *Options) Dump() string {
	d := dumper{p: &parser{o: o}}
	d.line("host", o.OriginalHost)
	d.line("user", o.User)
	d.line("hostname", o.Host)
	d.line("port", strconv.Itoa(o.Port))
	for _, id := range dumpStates {
		d.keyword(id)
	}
	d.words(o)
	d.forwards("dynamicforward", o.DynamicForward)
	d.forwards("localforward", o.LocalForward)
	d.forwards("remoteforward", o.RemoteForward)
	d.lists(o)
	d.special(o)
	for _, id := range dumpNewer {
		if o.Set.has(id) {
			d.keyword(id)
		}
	}
	for i := range own {
		if o.Set.has(own[i].id) {
			d.keyword(own[i].id)
		}
	}
	return d.String()
}

func (d *dumper) line(name, value string) {
	d.WriteString(name)
	d.WriteByte(' ')
	d.WriteString(value)
	d.WriteByte('\n')
}

// keyword writes a keyword by its entry in the table.
func (d *dumper) keyword(id keywordID) {
	kw := &keywords[id]
	switch {
	case kw.states != nil:
		d.line(kw.name, dumpState(kw.field(d.p), kw.states))
		return
	case id == kwFingerprintHash:
		d.line(kw.name, d.p.o.FingerprintHash)
		return
	case id == kwSSMPort && d.p.o.SSMPort == SSMPortNone:
		d.line(kw.name, "none")
		return
	case kw.field == nil:
		d.word(kw.name, d.p.o.ObscureKeystrokeTiming)
		return
	}
	switch field := kw.field(d.p).(type) {
	case *int:
		d.line(kw.name, strconv.Itoa(*field))
	case *time.Duration:
		d.line(kw.name, seconds(*field))
	case *string:
		d.word(kw.name, *field)
	}
}

// word writes a value unless it is empty.
func (d *dumper) word(name, value string) {
	if value != "" {
		d.line(name, value)
	}
}

func (d *dumper) words(o *Options) {
	for _, w := range [...][2]string{
		{"bindaddress", o.BindAddress},
		{"bindinterface", o.BindInterface},
		{"ciphers", strings.Join(o.Ciphers, ",")},
		{"controlpath", o.ControlPath},
		{"hostkeyalgorithms", strings.Join(o.HostKeyAlgorithms, ",")},
		{"hostkeyalias", o.HostKeyAlias},
		{"hostbasedacceptedalgorithms", strings.Join(o.HostbasedAcceptedAlgorithms, ",")},
		{"identityagent", o.IdentityAgent},
		{"ignoreunknown", o.IgnoreUnknown},
		{"kbdinteractivedevices", o.KbdInteractiveDevices},
		{"kexalgorithms", strings.Join(o.KexAlgorithms, ",")},
		{"casignaturealgorithms", strings.Join(o.CASignatureAlgorithms, ",")},
		{"localcommand", o.LocalCommand},
		{"remotecommand", o.RemoteCommand},
		{"loglevel", o.LogLevel.String()},
		{"macs", strings.Join(o.MACs, ",")},
		{"pkcs11provider", o.PKCS11Provider},
		{"securitykeyprovider", o.SecurityKeyProvider},
		{"preferredauthentications", strings.Join(o.PreferredAuthentications, ",")},
		{"pubkeyacceptedalgorithms", strings.Join(o.PubkeyAcceptedAlgorithms, ",")},
		{"revokedhostkeys", strings.Join(o.RevokedHostKeys, " ")},
		{"xauthlocation", o.XAuthLocation},
		{"knownhostscommand", o.KnownHostsCommand},
	} {
		d.word(w[0], w[1])
	}
}

func (d *dumper) forwards(name string, list []Forward) {
	for _, f := range list {
		value := endpoint(f.BindAddr, f.BindPort, f.BindPath)
		if f.Host != "" || f.Path != "" {
			value += " " + endpoint(f.Host, f.HostPort, f.Path)
		}
		d.line(name, value)
	}
}

// endpoint formats one side of a forward.
func endpoint(host string, port int, path string) string {
	switch {
	case path != "":
		return path
	case host == "":
		return strconv.Itoa(port)
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

func (d *dumper) lists(o *Options) {
	for _, id := range o.IdentityFile {
		d.line("identityfile", id.Path)
	}
	d.oneLine("canonicaldomains", o.CanonicalDomains)
	d.each("certificatefile", o.CertificateFile)
	d.oneLine("globalknownhostsfile", o.GlobalKnownHostsFile)
	d.oneLine("userknownhostsfile", o.UserKnownHostsFile)
	d.each("sendenv", o.SendEnv)
	d.each("setenv", o.SetEnv)
	d.oneLine("logverbose", o.LogVerbose)
	if len(o.ChannelTimeout) > 0 {
		d.oneLine("channeltimeout", o.ChannelTimeout)
	}
	if len(o.PermitRemoteOpen) == 0 {
		d.line("permitremoteopen", "any")
	} else {
		d.oneLine("permitremoteopen", o.PermitRemoteOpen)
	}
}

func (d *dumper) each(name string, values []string) {
	for _, v := range values {
		d.line(name, v)
	}
}

func (d *dumper) oneLine(name string, values []string) {
	if len(values) == 0 {
		d.line(name, "none")
		return
	}
	d.line(name, strings.Join(values, " "))
}

// special writes the keywords whose values follow rules of their own.
func (d *dumper) special(o *Options) {
	switch add := o.AddKeysToAgent; {
	case add.Lifetime > 0 && add.Mode == "confirm":
		d.line("addkeystoagent", "confirm "+seconds(add.Lifetime))
	case add.Lifetime > 0:
		d.line("addkeystoagent", seconds(add.Lifetime))
	default:
		d.line("addkeystoagent", dumpState(&add.Mode, statesAddKeys))
	}
	if o.ForwardAgentSocket != "" {
		d.line("forwardagent", o.ForwardAgentSocket)
	} else {
		d.line("forwardagent", dumpState(&o.ForwardAgent, statesFlag))
	}
	if o.Set.has(kwConnectTimeout) {
		d.line("connecttimeout", seconds(o.ConnectTimeout))
	} else {
		d.line("connecttimeout", "none")
	}
	d.line("tunneldevice", o.TunnelDevice)
	d.oneLine("canonicalizePermittedcnames", o.CanonicalizePermittedCNAMEs)
	switch persist := o.ControlPersist; {
	case persist.Set && persist.Forever:
		d.line("controlpersist", "yes")
	case persist.Set:
		d.line("controlpersist", seconds(persist.Timeout))
	default:
		d.line("controlpersist", "no")
	}
	d.line("escapechar", visible(o.EscapeChar))
	d.line("ipqos", o.IPQoS[0]+" "+o.IPQoS[1])
	d.line("rekeylimit", strconv.FormatInt(o.RekeyLimit.Bytes, 10)+" "+seconds(o.RekeyLimit.Interval))
	d.line("streamlocalbindmask", fmt.Sprintf("0%o", uint32(o.StreamLocalBindMask)))
	d.line("syslogfacility", o.SyslogFacility)
	if len(o.ProxyJump) > 0 {
		d.line("proxyjump", joinJumps(o.ProxyJump))
	} else {
		d.word("proxycommand", o.ProxyCommand)
	}
}

// seconds formats a time as a number of seconds, with its fraction if it has one.
func seconds(span time.Duration) string {
	return strconv.FormatFloat(span.Seconds(), 'f', -1, 64)
}

// visible formats an escape character (vis(3) with VIS_WHITE), controls in the form that the
// keyword takes.
func visible(c int) string {
	switch {
	case c == EscapeNone:
		return "none"
	case c < ' ':
		return "^" + string(rune(c+64))
	case c == ' ' || c == 0x7f:
		return fmt.Sprintf("\\%03o", c)
	}
	return string([]byte{byte(c)})
}
