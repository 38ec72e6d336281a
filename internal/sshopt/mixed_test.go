package sshopt

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The pieces of which TestCompatMixed makes configurations and command lines.
//
// Left out: BatchMode yes, which Debian's ssh takes for ServerAliveInterval 300, and StreamLocalBindMask, which
// OpenSSH takes from a block that doesn't apply, too.
var (
	mixedHeads = []string{"Host h", "Host *", "Host !h *", "Host other", "Host h? H h*", "Match host h", "Match host real.example,h",
		"Match originalhost h", "Match user u,root", "Match !user u", "Match localuser *", "Match all", "Match final", "Match final host real*",
		"Match canonical", "Match exec true", "Match !exec true", "Match exec \"test %h = h\"", "Match host h exec false", "Match user u !host h", "Host \"h\" # why"}
	mixedLines = []string{"Port 23", "Port 24", "User u", "User v", "Hostname real.example", "Hostname %h.example", "HostName=10.1.2.3",
		"ProxyCommand nc %h %p # not a comment", "ProxyCommand none", "ProxyJump j", "ProxyJump u@j:24,k", "ProxyJump none",
		"ControlPath ~/%C", "ControlPath \"/a b/%n\"", "ControlPath none", "ControlMaster auto", "ControlMaster no", "ControlPersist 5m", "ControlPersist yes",
		"IdentityFile ~/a", "IdentityFile /b/%u", "IdentityFile none", "IdentitiesOnly yes", "CertificateFile /c", "IdentityAgent none", "IdentityAgent ~/agent",
		"LocalForward 8080 a:80", "LocalForward /x/%h b:81", "RemoteForward 9 c:1", "RemoteForward 1080", "DynamicForward 1081", "GatewayPorts yes",
		"SendEnv LANG LC_*", "SendEnv -LC_*", "SetEnv A=1 B=2", "SetEnv C=3", "RequestTTY force", "RequestTTY no", "SessionType none", "RemoteCommand echo %n",
		"ForwardAgent yes", "ForwardAgent no", "ForwardX11 yes", "StrictHostKeyChecking accept-new", "StrictHostKeyChecking ask", "UserKnownHostsFile /k %d/l",
		"GlobalKnownHostsFile none", "UpdateHostKeys ask", "UpdateHostKeys no", "HostKeyAlias al", "HashKnownHosts yes", "CheckHostIP yes", "VisualHostKey yes",
		"ConnectTimeout 5", "ConnectTimeout none", "ServerAliveInterval 30", "ServerAliveCountMax 2", "ConnectionAttempts 3", "NumberOfPasswordPrompts 1",
		"BatchMode no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PubkeyAuthentication unbound", "PreferredAuthentications publickey,password",
		"GSSAPIAuthentication yes", "ExitOnForwardFailure yes", "ClearAllForwardings yes", "Compression yes", "TCPKeepAlive no", "IPQoS af21 cs1",
		"LogLevel ERROR", "LogLevel VERBOSE", "EscapeChar none", "EscapeChar ]", "AddKeysToAgent 5m", "AddressFamily inet6", "BindAddress ::1", "RekeyLimit 1G 1h",
		"CanonicalizeHostname no", "StreamLocalBindUnlink yes", "Tunnel yes", "TunnelDevice 1", "PermitLocalCommand yes",
		"LocalCommand echo %h", "IgnoreUnknown Foo*", "Foobar x", "PermitRemoteOpen a:1", "FingerprintHash md5", "RequiredRSASize 2048", "Include DIR/more*", "include none",
		"# comment", "", "  Port\t25  ", "port=26", "\"Port\" 27", "User 'q r'", "ChallengeResponseAuthentication no", "Protocol 2"}
	mixedFaults = []string{"Port x", "Nonsense 1", "User \"a", "ConnectTimeout 1x", "LocalForward 1", "Host", "Match", "Match nonsense", "Ciphers zz"}
	mixedWords  = []string{"-v", "-4", "-6", "-A", "-a", "-C", "-g", "-N", "-n", "-t", "-tt", "-T", "-x", "-X", "-q", "-M", "-K", "-k", "-f", "-p30", "-llate", "-lu",
		"-oPort=31", "-oUser=o", "-oHostname=typed", "-L1:a:2", "-R3:b:4", "-D5", "-Jx,y", "-Wa:1", "-S/s", "-S none", "-i/etc/passwd", "-ex", "-vvv", "-oRequestTTY=auto",
		"-oControlPersist=no", "-oSendEnv=X", "-oSetEnv=Z=1", "-oClearAllForwardings=no", "-oProxyCommand=none", "-oProxyJump=none", "-b1.2.3.4", "-Blo", "-y", "-oIgnoreUnknown=Non*"}
)

// mix makes a configuration and a command line of random pieces.
func mix(r *rand.Rand, dir string) (config, more string, args []string) {
	file := func() string {
		var b strings.Builder
		for range 1 + r.IntN(14) {
			switch n := r.IntN(20); {
			case n == 0 && r.IntN(4) == 0:
				b.WriteString(pick(r, mixedFaults))
			case n < 5:
				b.WriteString(pick(r, mixedHeads))
			default:
				b.WriteString("  " + strings.ReplaceAll(pick(r, mixedLines), "DIR", dir))
			}
			b.WriteByte('\n')
		}
		return b.String()
	}
	config, more = file(), strings.ReplaceAll(file(), "Include", "#")
	words := func() {
		for range r.IntN(3) {
			args = append(args, strings.SplitN(pick(r, mixedWords), " ", 2)...)
		}
	}
	args = []string{"-G", "-F", "config"}
	words()
	args = append(args, pick(r, []string{"h", "H", "u@h", "ssh://w@h:77", "other", "real.example", "10.0.0.1", "127.1", "::0001", "0x7f.1", "1.2.3.999"}))
	words()
	return config, more, append(args, [][]string{nil, {"true"}, {"--", "-v"}}[r.IntN(3)]...)
}

func pick(r *rand.Rand, from []string) string { return from[r.IntN(len(from))] }

// TestCompatMixed compares with stock ssh what nobody has thought of: how keywords, blocks, files and flags go
// together. The same seeds come each time; a failure names its own.
func TestCompatMixed(t *testing.T) {
	ssh := stockSSH(t)
	env := realEnvironment(t)
	env.Args0 = ssh
	turns := 2000
	if testing.Short() {
		turns = 200
	}
	for seed := range uint64(turns) {
		dir := t.TempDir()
		t.Chdir(dir)
		config, more, args := mix(rand.New(rand.NewPCG(seed, 0)), dir)
		write(t, dir, "config", config)
		write(t, dir, "more", more)
		stock, ours := runStock(t, ssh, args), runOurs(args, env)
		d := diff(stock.stdout, ours.stdout)
		if d == "" && (stock.code != ours.code || !slices.Equal(lines(stock.stderr), lines(ours.stderr))) {
			d = "stderr and status"
		}
		if d != "" {
			t.Errorf("seed %d, %q: %s\nstock %d %q\n ours %d %q\n%s--- more\n%s", seed, args, d, stock.code, stock.stderr, ours.code, ours.stderr, config, more)
		}
	}
}

// lines are those of a log that are compared.
func lines(log string) []string { return strings.Split(log, "\r\n") }
