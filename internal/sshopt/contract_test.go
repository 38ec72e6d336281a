package sshopt

import (
	"errors"
	"strings"
	"testing"
)

// class is what becomes of a keyword of ssh_config(5) in this program.
type class string

const (
	works    class = "works"
	accepted class = "accepted, its effect may be missing"
	refused  class = "refused when it is asked for"
)

// keywordClasses has, for every keyword, its class and a value that isn't its default.
var keywordClasses = []struct {
	name  string
	class class
	value string
}{
	{"AddKeysToAgent", works, "5m"}, {"AddressFamily", works, "inet6"}, {"BatchMode", works, "yes"}, {"BindAddress", works, "127.0.0.1"},
	{"BindInterface", works, "eth0"}, {"CanonicalDomains", works, "a.example"}, {"CanonicalizeFallbackLocal", works, "no"},
	{"CanonicalizeHostname", works, "always"}, {"CanonicalizeMaxDots", works, "3"}, {"CanonicalizePermittedCNAMEs", works, "a:b"},
	{"CASignatureAlgorithms", works, "ssh-ed25519"}, {"CertificateFile", works, "/c"}, {"ChannelTimeout", accepted, "session=5m"},
	{"CheckHostIP", accepted, "yes"}, {"Ciphers", works, "aes256-ctr"}, {"ClearAllForwardings", works, "yes"}, {"Compression", accepted, "yes"},
	{"ConnectionAttempts", works, "2"}, {"ConnectTimeout", works, "5"}, {"ControlMaster", works, "auto"}, {"ControlPath", works, "/s"},
	{"ControlPersist", works, "60"}, {"DynamicForward", works, "1080"}, {"EnableEscapeCommandline", accepted, "yes"},
	{"EnableSSHKeysign", accepted, "yes"}, {"EscapeChar", works, "none"}, {"ExitOnForwardFailure", works, "yes"}, {"FingerprintHash", works, "md5"},
	{"ForkAfterAuthentication", works, "yes"}, {"ForwardAgent", works, "yes"}, {"ForwardX11", accepted, "yes"}, {"ForwardX11Timeout", accepted, "60"},
	{"ForwardX11Trusted", accepted, "no"}, {"GatewayPorts", works, "yes"}, {"GlobalKnownHostsFile", works, "/g"},
	{"GSSAPIAuthentication", accepted, "yes"}, {"GSSAPIDelegateCredentials", accepted, "yes"}, {"HashKnownHosts", works, "yes"},
	{"HostbasedAcceptedAlgorithms", accepted, "ssh-ed25519"}, {"HostbasedAuthentication", refused, "yes"}, {"HostKeyAlgorithms", works, "ssh-ed25519"},
	{"HostKeyAlias", works, "alias"}, {"Hostname", works, "real"}, {"IdentitiesOnly", works, "yes"}, {"IdentityAgent", works, "/agent"},
	{"IdentityFile", works, "/i"}, {"IgnoreUnknown", works, "x*"}, {"IPQoS", works, "af21 cs1"}, {"KbdInteractiveAuthentication", works, "no"},
	{"KbdInteractiveDevices", accepted, "pam"}, {"KexAlgorithms", works, "ecdh-sha2-nistp256"}, {"KnownHostsCommand", works, "/k"},
	{"LocalCommand", works, "true"}, {"LocalForward", works, "1 a:2"}, {"LogLevel", works, "DEBUG"}, {"LogVerbose", accepted, "x"},
	{"MACs", works, "hmac-sha2-256"}, {"NoHostAuthenticationForLocalhost", works, "yes"}, {"NumberOfPasswordPrompts", works, "1"},
	{"ObscureKeystrokeTiming", accepted, "no"}, {"PasswordAuthentication", works, "no"}, {"PermitLocalCommand", works, "yes"},
	{"PermitRemoteOpen", works, "a:1"}, {"PKCS11Provider", accepted, "/p.so"}, {"Port", works, "2222"}, {"PreferredAuthentications", works, "publickey"},
	{"ProxyCommand", works, "nc"}, {"ProxyJump", works, "j"}, {"ProxyUseFdpass", works, "yes"}, {"PubkeyAcceptedAlgorithms", works, "ssh-ed25519"},
	{"PubkeyAuthentication", works, "unbound"}, {"RefuseConnection", refused, "why"}, {"RekeyLimit", works, "1073741824 3600"},
	{"RemoteCommand", works, "true"}, {"RemoteForward", works, "1 a:2"}, {"RequestTTY", works, "force"}, {"RequiredRSASize", works, "2048"},
	{"RevokedHostKeys", works, "/r"}, {"SecurityKeyProvider", accepted, "/s.so"}, {"SendEnv", works, "LANG"}, {"ServerAliveCountMax", works, "2"},
	{"ServerAliveInterval", works, "30"}, {"SessionType", works, "none"}, {"SetEnv", works, "A=b"}, {"StdinNull", works, "yes"},
	{"StreamLocalBindMask", works, "0111"}, {"StreamLocalBindUnlink", works, "yes"}, {"StrictHostKeyChecking", works, "accept-new"},
	{"SyslogFacility", works, "AUTH"}, {"Tag", works, "t"}, {"TCPKeepAlive", works, "no"}, {"Tunnel", refused, "ethernet"}, {"TunnelDevice", accepted, "1:any"},
	{"UpdateHostKeys", works, "ask"}, {"User", works, "u"}, {"UserKnownHostsFile", works, "/u"}, {"VerifyHostKeyDNS", accepted, "ask"},
	{"VersionAddendum", accepted, "x"}, {"VisualHostKey", accepted, "yes"}, {"WarnWeakCrypto", accepted, "no"}, {"XAuthLocation", accepted, "/x"},
	{"Host", works, ""}, {"Match", works, ""}, {"Include", works, ""},
}

func TestKeywordClasses(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range keywordClasses {
		name := strings.ToLower(k.name)
		seen[name] = true
		if k.value == "" {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			env := testEnvironment(t.TempDir())
			env.Resolve = func(string) (string, bool) { return "", true }
			args := []string{"-o" + k.name + "=" + k.value, "h", "c"}
			if k.name == "RemoteCommand" {
				args = args[:2]
			}
			o, err := Parse(args, env)
			var failure *Error
			if got := errors.As(err, &failure); got != (k.class == refused) {
				t.Fatalf("%s: %v", k.class, err)
			} else if got && (failure.Text == "" || failure.Code != 255) {
				t.Errorf("refused by %+v", failure)
			}
			if k.name == "RefuseConnection" { // the block that has it is the end, as in OpenSSH 10, for -G too
				return
			}
			if !o.IsSet(k.name) {
				t.Error("isn't set")
			}
			if k.class == refused {
				parse(t, env, "-G", "-o"+k.name+"="+k.value, "h") // asked for is a connection only
			}
		})
	}
	for id := range keywords {
		name := keywords[id].name
		if !seen[name] && !strings.HasPrefix(name, "ssm") {
			t.Errorf("%s has no class", name)
		}
	}
	for _, k := range keywordClasses {
		if lookup(strings.ToLower(k.name)).id == kwNone {
			t.Errorf("%s isn't known", k.name)
		}
	}
}

// What is refused is accepted when it asks for nothing.
func TestRefusedKeywordsMayBeOff(t *testing.T) {
	env := testEnvironment(t.TempDir())
	for _, arg := range []string{"-oTunnel=no", "-oHostbasedAuthentication=no", "-oEnableSSHKeysign=no", "-oVerifyHostKeyDNS=no", "-oPKCS11Provider=none", "-oForwardX11=no"} {
		if o := parse(t, env, arg, "h", "c"); len(o.Notices) > 0 {
			t.Errorf("%s: %+v", arg, o.Notices)
		}
	}
}

// git asks so whether we are an OpenSSH (-G on a name of any kind): no look-up, no command.
func TestDumpTouchesNothing(t *testing.T) {
	env := testEnvironment(t.TempDir())
	env.Resolve = func(name string) (string, bool) { t.Errorf("looks up %s", name); return "", false }
	env.Exec = func(command string) (int, error) { t.Errorf("runs %s", command); return 0, nil }
	env.StartSession = func(command string) (StartSession, error) { t.Errorf("reads %s", command); return StartSession{}, nil }
	o := parse(t, env, "-G", "-o", "SendEnv=GIT_PROTOCOL", "-p", "2222", "-oProxyCommand=aws ssm", "u@git.example.com")
	if !strings.Contains(o.Dump(), "\nport 2222\n") {
		t.Error("no dump")
	}
}
