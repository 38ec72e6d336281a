package sshopt

import (
	"errors"
	"os"
	"strings"
	"time"
)

// parser holds what is known so far. The fields below o are values in the form in which they were
// written, which become final only when everything has been read.
type parser struct {
	o   *Options
	env Environment

	logFile          string
	userTyped        bool // User comes from the command line, not from a file
	jumpSet          bool // ProxyJump or -J was given, be it none
	rekeyTimeSet     bool
	wantFinal        bool // some Match final asks for a second pass
	finalPass        bool // this is it
	commandLine      bool // argv is still being read
	conflictsChecked bool
	preferredAuths   string

	ciphers, macs, kex, hostKeys, hostbased, pubkeys, caSignatures string
}

// Parse reads args (without the program's name) and the configuration files that they and env
// name, and returns what they ask for. Options are never nil. The error, if any, is an *Error;
// Options then still say where and at which level it is to be logged, and hold the notices that
// come before it.
//
// With ActionDump, the fields that -G prints as written (identity files, ProxyCommand,
// LocalCommand, and others) keep their tokens.
func Parse(args []string, env Environment) (*Options, error) {
	p := &parser{o: &Options{LogLevel: LogInfo}, env: env}
	p.fillEnvironment()
	p.commandLine = true
	err := p.arguments(args)
	if errors.Is(err, errDone) {
		return p.o, nil
	}
	if err != nil {
		// OpenSSH's log isn't set up yet: whatever -q and -E said, the text goes to stderr.
		return &Options{LogLevel: LogInfo, Notices: p.o.Notices}, p.withNotices(err)
	}
	p.commandLine = false
	p.o.LogFile = p.logFile
	typedLevel := p.o.LogLevel
	if err := p.configure(); err != nil {
		if !p.conflictsChecked {
			p.o.LogLevel = typedLevel // OpenSSH takes the files' level over only then
		}
		return p.o, p.withNotices(err)
	}
	return p.o, nil
}

// configure reads the files and settles everything.
func (p *parser) configure() error {
	if err := p.readVariables(); err != nil {
		return err
	}
	if err := p.readFiles(); err != nil {
		return err
	}
	if p.wantFinal {
		p.log(1, "configuration requests final Match pass")
	}
	if err := p.settleHost(); err != nil {
		return err
	}
	if p.o.CanonicalizeHostname != CanonicalizeNo && !p.wantFinal {
		p.log(1, "hostname canonicalisation enabled, will re-parse configuration")
		p.wantFinal = true
	}
	if p.wantFinal {
		p.log(1, "re-parsing configuration")
		p.finalPass = true
		p.o.Hostname = p.o.Host
		p.mark(kwHostname)
		if err := p.readFiles(); err != nil {
			return err
		}
	}
	if err := p.fillDefaults(); err != nil {
		return err
	}
	if err := p.settle(); err != nil {
		return err
	}
	if p.o.MuxCommand != "" && p.o.Action == ActionRun {
		p.o.Action = ActionMuxCommand
	}
	return p.check()
}

// fillEnvironment puts the defaults in.
func (p *parser) fillEnvironment() {
	e := &p.env
	if e.Getenv == nil {
		e.Getenv = os.LookupEnv
	}
	if e.HomeOf == nil {
		e.HomeOf = func(string) (string, bool) { return "", false }
	}
	if e.Exec == nil {
		e.Exec = p.runShell
	}
	if e.Addresses == nil {
		e.Addresses = interfaceAddresses
	}
	if e.UserConfig == "" {
		e.UserConfig = strings.TrimRight(e.Home, "/") + "/.ssh/config"
	}
	if e.SystemConfig == "" {
		e.SystemConfig = "/etc/ssh/ssh_config"
	}
	if e.Version == "" {
		e.Version = "OpenSSH_9.2"
	}
}

// mark notes that the keyword is set, and reports whether it wasn't before.
func (p *parser) mark(id keywordID) bool {
	if p.o.Set.has(id) {
		return false
	}
	p.o.Set.add(id)
	return true
}

func (p *parser) isSet(id keywordID) bool { return p.o.Set.has(id) }

// warn adds a line that is printed whatever the log level.
func (p *parser) warn(text string) {
	p.o.Notices = append(p.o.Notices, Notice{Text: text, Raw: true})
}

// log adds a line of the log, if the level of this moment shows it. The level is report.Logf's.
func (p *parser) log(level int, text string) {
	shown := p.o.LogLevel
	if p.commandLine {
		shown = LogInfo // the log isn't set up yet
	}
	if shown.Shows(level) {
		p.o.Notices = append(p.o.Notices, Notice{Text: printable(text), Level: level})
	}
}

// printable writes bytes that could steer a terminal in octal, as OpenSSH's log does (do_log, log.c:
// VIS_SAFE|VIS_OCTAL).
func printable(s string) string {
	clean := func(c byte) bool { return c >= ' ' && c < 0x7f && c != '\\' || c == '\n' || c == '\t' }
	i := 0
	for i < len(s) && clean(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	b := []byte(s[:i])
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case clean(c) || c == '\a' || c == '\b' || c == '\r':
			b = append(b, c)
		case c == '\\':
			b = append(b, c, c)
		default:
			b = append(b, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
		}
	}
	return string(b)
}

// withNotices moves the error lines logged so far in front of the last one, so that Error.Text
// holds all that is said about the failure. Among lines for debugging they stay in their places.
func (p *parser) withNotices(err error) error {
	var last *Error
	if !errors.As(err, &last) || last.Raw {
		return err
	}
	for _, n := range p.o.Notices {
		if n.Level > 0 {
			return &Error{Text: printable(last.Text), Code: last.Code}
		}
	}
	var lines []string
	kept := p.o.Notices[:0]
	for _, n := range p.o.Notices {
		if n.Level < 0 && !n.Raw {
			lines = append(lines, n.Text)
			continue
		}
		kept = append(kept, n)
	}
	p.o.Notices = kept
	if last.Text != "" {
		lines = append(lines, printable(last.Text))
	}
	return &Error{Text: strings.Join(lines, "\n"), Code: last.Code}
}

// defaults that aren't the zero value (fill_default_options, readconf.c; ForwardX11Trusted and
// IPQoS as Debian has them).
var defaultSpans = [...]struct {
	id   keywordID
	span time.Duration
}{
	{kwForwardX11Timeout, 20 * time.Minute},
	{kwSSMKeepAlive, 45 * time.Second},
	{kwSSMQueueTimeout, 10 * time.Minute},
	{kwSSMResume, 15 * time.Minute},
}

var defaultNumbers = [...]struct {
	id keywordID
	n  int
}{
	{kwCanonicalizeMaxDots, 1}, {kwConnectionAttempts, 1}, {kwNumberOfPasswordPrompts, 3},
	{kwRequiredRSASize, 1024}, {kwSSMSpareChannels, 2}, {kwServerAliveCountMax, 3},
}

var defaultOn = [...]keywordID{
	kwCanonicalizeFallbackLocal, kwForwardX11Trusted, kwKbdInteractiveAuthentication, kwPasswordAuthentication,
	kwSSMAnswerAhead, kwSSMMultiplex, kwTCPKeepAlive,
}

var defaultWords = [...]struct {
	id   keywordID
	word string
}{
	{kwAddressFamily, "any"}, {kwStrictHostKeyChecking, "ask"}, {kwTunnel, "no"},
	{kwVerifyHostKeyDNS, "no"}, {kwXAuthLocation, "/usr/bin/xauth"}, {kwSecurityKeyProvider, "internal"},
}

// identityNames are the key files tried when none is named, below ~/.ssh.
var identityNames = [...]string{"id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa"}

// fillDefaults gives every keyword that isn't set its value.
func (p *parser) fillDefaults() error {
	p.fillTables()
	p.fillFiles()
	o := p.o
	if !p.isSet(kwPubkeyAuthentication) {
		o.PubkeyAuthentication = PubkeyYes
	}
	if !p.isSet(kwLogLevel) {
		o.LogLevel = LogInfo
	}
	if !p.isSet(kwEscapeChar) {
		o.EscapeChar = '~'
	}
	if !p.isSet(kwAddKeysToAgent) {
		o.AddKeysToAgent.Mode = "no"
	}
	if !p.isSet(kwStreamLocalBindMask) {
		o.StreamLocalBindMask = 0o177
	}
	if !p.isSet(kwIPQoS) {
		o.IPQoS = [2]string{"lowdelay", "throughput"}
	}
	if o.TunnelDevice == "" {
		o.TunnelDevice = "any:any"
	}
	if o.FingerprintHash == "" {
		o.FingerprintHash = "SHA256"
	}
	if o.SyslogFacility == "" {
		o.SyslogFacility = "USER"
	}
	// -W changes these two defaults, but a word of the user's sets them back.
	if o.StdioForward != nil {
		o.ExitOnForwardFailure = o.ExitOnForwardFailure || !p.isSet(kwExitOnForwardFailure)
		o.ClearAllForwardings = o.ClearAllForwardings || !p.isSet(kwClearAllForwardings)
	}
	if o.ClearAllForwardings {
		o.LocalForward, o.RemoteForward, o.DynamicForward, o.Tunnel = nil, nil, nil, "no"
	}
	if p.preferredAuths != "" {
		o.PreferredAuthentications = strings.Split(p.preferredAuths, ",")
	}
	p.clearNone()
	return p.settleAlgorithms()
}

func (p *parser) fillTables() {
	for _, id := range defaultOn {
		if !p.isSet(id) {
			*keywords[id].field(p).(*bool) = true
		}
	}
	for _, d := range defaultNumbers {
		if !p.isSet(d.id) {
			*keywords[d.id].field(p).(*int) = d.n
		}
	}
	for _, d := range defaultSpans {
		if !p.isSet(d.id) {
			*keywords[d.id].field(p).(*time.Duration) = d.span
		}
	}
	for _, d := range defaultWords {
		if !p.isSet(d.id) {
			*keywords[d.id].field(p).(*string) = d.word
		}
	}
}

// fillFiles gives the names of key and known-hosts files.
func (p *parser) fillFiles() {
	o := p.o
	if len(o.IdentityFile) == 0 {
		for _, name := range identityNames {
			o.IdentityFile = append(o.IdentityFile, Identity{Path: "~/.ssh/" + name})
		}
	}
	if len(o.GlobalKnownHostsFile) == 0 {
		o.GlobalKnownHostsFile = []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"}
	}
	const userFile = "~/.ssh/known_hosts"
	if !p.isSet(kwUpdateHostKeys) {
		// Only a file that is ssh's own may be rewritten unasked.
		o.UpdateHostKeys = "no"
		files := o.UserKnownHostsFile
		if o.VerifyHostKeyDNS == "no" && (len(files) == 0 || len(files) == 1 && files[0] == userFile) {
			o.UpdateHostKeys = "yes"
		}
	}
	if len(o.UserKnownHostsFile) == 0 {
		o.UserKnownHostsFile = []string{userFile, userFile + "2"}
	}
}

// clearNone empties what "none" switches off.
func (p *parser) clearNone() {
	o := p.o
	for _, s := range []*string{&o.LocalCommand, &o.RemoteCommand, &o.ProxyCommand, &o.ControlPath,
		&o.PKCS11Provider, &o.SecurityKeyProvider, &o.KnownHostsCommand} {
		if isNone(*s) {
			*s = ""
		}
	}
	if len(o.RevokedHostKeys) == 1 && isNone(o.RevokedHostKeys[0]) {
		o.RevokedHostKeys = nil
	}
	if len(o.CanonicalizePermittedCNAMEs) == 1 && isNone(o.CanonicalizePermittedCNAMEs[0]) {
		o.CanonicalizePermittedCNAMEs = nil
	}
}

func isNone(s string) bool { return strings.EqualFold(s, "none") }
