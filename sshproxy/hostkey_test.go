package sshproxy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// stockCommand is OpenSSH's client on its way to the node; the first value of an option counts.
func (n *node) stockCommand(t *testing.T, options ...string) *exec.Cmd {
	t.Helper()
	args := []string{"-F", "none"}
	for _, o := range append(options, "GlobalKnownHostsFile=none", "UpdateHostKeys=no", "IdentityFile="+n.key,
		"ProxyCommand="+testenv.Tool(t, "sshd")+" -i -f "+n.config+" -E "+filepath.Join(n.dir, "stock.log")) {
		args = append(args, "-o"+o)
	}
	return exec.Command(testenv.Tool(t, "ssh"), append(args, "-l", currentUser(), "node", "true")...)
}

// stockSSH runs OpenSSH's client against the node as far as the host key, and returns its stderr,
// lines without returns.
func (n *node) stockSSH(t *testing.T, options ...string) string {
	t.Helper()
	cmd := n.stockCommand(t, append(options, "PreferredAuthentications=none")...)
	var errs strings.Builder
	cmd.Stderr = &errs
	_ = cmd.Run() // its status says less than its words
	text := strings.TrimSpace(strings.ReplaceAll(errs.String(), "\r", ""))
	if before, last := cutLast(text); strings.Contains(last, "Permission denied") {
		return before // the key was let through
	}
	return text
}

// cutLast cuts off the last line.
func cutLast(text string) (before, last string) {
	i := strings.LastIndexByte(text, '\n')
	if i < 0 {
		return "", text
	}
	return text[:i], text[i+1:]
}

// TestHostKeyWordsAreStock runs the same files past OpenSSH's client and ours.
func TestHostKeyWordsAreStock(t *testing.T) {
	n := startNode(t, nodeOptions{})
	known, err := os.ReadFile(n.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	right := strings.TrimPrefix(string(known), "node ")
	key := parsePublicFile([]byte(right))
	_, other := newSigner(t, "ed25519")
	_, rsaKey := newSigner(t, "rsa")
	wrong, wrongType := string(ssh.MarshalAuthorizedKey(other)), string(ssh.MarshalAuthorizedKey(rsaKey))
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, path("empty"), "# nothing\n\n", 0o600)
	writeFile(t, path("revoked"), wrong+right, 0o600)
	writeFile(t, path("unreadable"), wrong+"ssh-ed25519\n", 0o600)
	writeFile(t, path("broken"), "SSHKRL\n\x00\x00\x00\x00\x02", 0o600)
	if out, err := exec.Command("ssh-keygen", "-q", "-k", "-f", path("krl"), path("revoked")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	writeFile(t, path("hashed"), "node "+right, 0o600)
	if out, err := exec.Command("ssh-keygen", "-q", "-H", "-f", path("hashed")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	hashed, err := os.ReadFile(path("hashed"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path("global"), "node "+wrong, 0o600)
	writeFile(t, path("tells"), "#!/bin/sh\ncase $1 in ORDER|HOSTNAME) echo \"$2 $3\" ;; esac\n", 0o700)
	writeFile(t, path("fails"), "#!/bin/sh\nexit 3\n", 0o700)
	writeFile(t, path("dies"), "#!/bin/sh\nkill -9 $$\n", 0o700)
	command := func(words ...string) ([]string, func(*Config)) {
		return []string{"KnownHostsCommand=" + joinWords(words)}, func(c *Config) { c.KnownHostsCommand = words }
	}
	revokedBy := func(name string) ([]string, func(*Config)) {
		return []string{"RevokedHostKeys=" + path(name)}, func(c *Config) { c.RevokedHostKeys = []string{path(name)} }
	}
	type both struct {
		stock []string
		ours  func(*Config)
	}
	with := func(stock []string, ours func(*Config)) both { return both{stock, ours} }
	forwards := both{[]string{"LocalForward=127.0.0.1:1 x:1", "ForwardAgent=yes", "UpdateHostKeys=yes"},
		func(c *Config) { c.PortForwarding, c.ForwardAgent, c.UpdateHostKeys = true, true, "yes" }}
	tests := []struct {
		name   string
		known  string
		strict string
		port   int
		alias  string
		fails  bool
		adds   bool
		both
	}{
		{name: "known", known: "node " + right, strict: "yes"},
		{name: "new, yes", strict: "yes", fails: true},
		{name: "new, ask in batch", strict: "ask", fails: true},
		{name: "new, no", strict: "no", adds: true},
		{name: "new, off", strict: "off", adds: true},
		{name: "new, accept-new", strict: "accept-new", adds: true},
		{name: "new with port", strict: "no", port: 2222, adds: true},
		{name: "new with alias and port", strict: "no", port: 2222, alias: "other", adds: true},
		{name: "known with port", known: "[node]:2222 " + right, strict: "yes", port: 2222},
		{name: "known without the port", known: "node " + right, strict: "yes", port: 2222},
		{name: "other without the port", known: "node " + wrong, strict: "accept-new", port: 2222, adds: true},
		{name: "changed, yes", known: "x " + wrong + "node " + wrong, strict: "yes", fails: true},
		{name: "changed, accept-new", known: "node " + wrong, strict: "accept-new", fails: true},
		{name: "changed, no", known: "node " + wrong, strict: "no"},
		{name: "changed with port", known: "[node]:2222 " + wrong, strict: "yes", port: 2222, fails: true},
		{name: "other type", known: "node " + wrongType, strict: "accept-new", fails: true},
		{name: "one of two", known: "node " + wrong + "node " + right, strict: "yes"},
		{name: "revoked", known: "node " + right + "@revoked * " + right, strict: "yes", fails: true},
		{name: "revoked, no", known: "node " + right + "@revoked * " + right, strict: "no"},
		{name: "negated", known: "*,!node " + right, strict: "yes", fails: true},
		{name: "hashed", known: string(hashed), strict: "yes"},
		{name: "revoked without the port", known: "@revoked node " + right, strict: "yes", port: 2222, fails: true},
		{name: "revoked without the port, no", known: "@revoked node " + right, strict: "no", port: 2222},
		{name: "file of revoked keys", known: "node " + right, strict: "yes", fails: true, both: with(revokedBy("revoked"))},
		{name: "file of revoked keys, no", known: "node " + right, strict: "no", fails: true, both: with(revokedBy("revoked"))},
		{name: "revocation list", known: "node " + right, strict: "yes", fails: true, both: with(revokedBy("krl"))},
		{name: "empty file of revoked keys", known: "node " + right, strict: "yes", both: with(revokedBy("empty"))},
		{name: "no file of revoked keys", known: "node " + right, strict: "yes", fails: true, both: with(revokedBy("missing"))},
		{name: "other than keys in it", known: "node " + right, strict: "yes", fails: true, both: with(revokedBy("unreadable"))},
		{name: "command knows", strict: "yes", both: with(command(path("tells"), "%I", "%H", strings.TrimSpace(right)))},
		{name: "command knows the key told", strict: "yes", both: with(command(path("tells"), "%I", "%H", "%t %K"))},
		{name: "command knows another", strict: "yes", both: with(command(path("tells"), "%I", "x%%%H", strings.TrimSpace(right))), fails: true},
		{name: "command knows a changed one", strict: "no", both: with(command(path("tells"), "%I", "%H", strings.TrimSpace(wrong)))},
		{name: "command fails", known: "node " + right, strict: "no", both: with(command(path("fails"), "a b", "c")), fails: true},
		{name: "command dies", known: "node " + right, strict: "yes", both: with(command(path("dies"))), fails: true},
		{name: "command isn't there", known: "node " + right, strict: "yes", both: with(command(path("missing")))},
		{name: "command is no program", known: "node " + right, strict: "yes", both: with(command(path("empty"))), fails: true},
		{name: "two files", strict: "yes", both: both{[]string{"GlobalKnownHostsFile=" + path("global")},
			func(c *Config) { c.GlobalKnownHostsFile = []string{path("global")} }}, fails: true},
		{name: "no user file", strict: "no", both: both{[]string{"UserKnownHostsFile=none"}, func(c *Config) { c.UserKnownHostsFile = nil }}, fails: true},
		{name: "null device", strict: "accept-new", both: both{[]string{"UserKnownHostsFile=/dev/null"}, func(c *Config) { c.UserKnownHostsFile = []string{"/dev/null"} }}},
		{name: "file that can't be written", strict: "accept-new", both: both{[]string{"UserKnownHostsFile=/dev/null/x"}, func(c *Config) { c.UserKnownHostsFile = []string{"/dev/null/x"} }}},
		{name: "picture of a known key", known: "node " + right, strict: "yes", both: both{[]string{"VisualHostKey=yes"}, func(c *Config) { c.VisualHostKey = true }}},
		{name: "picture by MD5", known: "node " + right, strict: "yes", both: both{[]string{"VisualHostKey=yes", "FingerprintHash=md5"},
			func(c *Config) { c.VisualHostKey, c.FingerprintHash = true, hashMD5 }}},
		{name: "changed, MD5", known: "node " + wrong, strict: "yes", both: both{[]string{"FingerprintHash=md5"}, func(c *Config) { c.FingerprintHash = hashMD5 }}, fails: true},
		{name: "changed, no, forwards", known: "node " + wrong, strict: "no", both: forwards},
		{name: "changed, no, forwards wanted", known: "node " + wrong, strict: "no", fails: true, both: both{append(forwards.stock, "ExitOnForwardFailure=yes"),
			func(c *Config) { forwards.ours(c); c.ExitOnForwardFailure = true }}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "known_hosts")
			port := max(tt.port, defaultPort)
			writeFile(t, file, tt.known, 0o600)
			options := append(slices.Clone(tt.stock), "BatchMode=yes", "UserKnownHostsFile="+file, "StrictHostKeyChecking="+tt.strict, fmt.Sprintf("Port=%d", port))
			if tt.alias != "" {
				options = append(options, "HostKeyAlias="+tt.alias)
			}
			want := n.stockSSH(t, options...)
			stockFile, _ := os.ReadFile(file)

			writeFile(t, file, tt.known, 0o600)
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.UserKnownHostsFile, cfg.StrictHostKeyChecking = []string{file}, tt.strict
			cfg.Port, cfg.HostKeyAlias, cfg.BatchMode = tt.port, tt.alias, true
			if tt.ours != nil {
				tt.ours(&cfg)
			}
			cfg = cfg.withDefaults()
			checker := newHostKeyChecker(t.Context(), &cfg)
			_, err := checker.algorithms()
			if err == nil {
				err = checker.check("", nil, key)
			}
			got := log.text()
			if err != nil {
				got = strings.TrimSpace(got + "\n" + err.Error())
			}
			if err == nil && checker.changed != strings.Contains(want, "@@@") {
				t.Errorf("changed: %v", checker.changed)
			}
			if (err != nil) != tt.fails {
				t.Errorf("got %v", err)
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			ourFile, _ := os.ReadFile(file)
			if string(ourFile) != string(stockFile) || tt.adds != (len(ourFile) > len(tt.known)) {
				t.Errorf("known_hosts is\n%s\nwant\n%s", ourFile, stockFile)
			}
		})
	}
}

func TestHostKeyQuestion(t *testing.T) {
	_, key := newSigner(t, "ed25519")
	fingerprint := ssh.FingerprintSHA256(key)
	question := "The authenticity of host '[node]:42 (<no hostip for proxy command>)' can't be established.\n" +
		"ED25519 key fingerprint is " + fingerprint + ".\n" +
		"This key is not known by any other names.\n" +
		"Are you sure you want to continue connecting (yes/no/[fingerprint])? "
	again := "Please type 'yes', 'no' or the fingerprint: "
	tests := []struct {
		name    string
		answers []string
		accept  bool
		asked   []string
	}{
		{"yes", []string{"yes"}, true, []string{question}},
		{"YES with spaces", []string{"  YES  "}, true, []string{question}},
		{"fingerprint", []string{fingerprint}, true, []string{question}},
		{"no", []string{"no"}, false, []string{question}},
		{"nobody", nil, false, []string{question}},
		{"y is no answer", []string{"y", "yes"}, true, []string{question, again}},
		{"wrong fingerprint", []string{"SHA256:x", "no"}, false, []string{question, again}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "known_hosts")
			user := &answers{queue: tt.answers}
			var log logBook
			cfg := Config{Host: "Node", Port: 42, UserKnownHostsFile: []string{file}, Prompt: user, Logf: log.logf}.withDefaults()
			err := newHostKeyChecker(t.Context(), &cfg).check("", nil, key)
			if (err == nil) != tt.accept || !slices.Equal(user.prompts(), tt.asked) {
				t.Errorf("got %v, asked %q", err, user.prompts())
			}
			want := ""
			if tt.accept {
				want = "Warning: Permanently added '[node]:42' (ED25519) to the list of known hosts."
			}
			if log.text() != want {
				t.Errorf("log %q, want %q", log.text(), want)
			}
		})
	}
	t.Run("other names", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "known_hosts")
		line := string(ssh.MarshalAuthorizedKey(key))
		writeFile(t, file, "a,b "+line+"# x\n"+strings.Repeat("c "+line, 9), 0o600)
		user := &answers{}
		cfg := Config{Host: "node", Addr: "192.0.2.1", UserKnownHostsFile: []string{file}, Prompt: user}.withDefaults()
		_ = newHostKeyChecker(t.Context(), &cfg).check("", nil, key)
		want := "The authenticity of host 'node (192.0.2.1)' can't be established.\n" +
			"ED25519 key fingerprint is " + fingerprint + ".\n" +
			"This host key is known by the following other names/addresses:\n    " + file + ":1: a,b\n"
		if len(user.prompts()) != 1 || !strings.HasPrefix(user.prompts()[0], want) ||
			!strings.Contains(user.prompts()[0], "    (2 additional names omitted)\nAre you sure") {
			t.Errorf("asked %q", user.prompts())
		}
	})
}

func TestHostCertificates(t *testing.T) {
	authority, authorityKey := newSigner(t, "ed25519")
	signer, err := ssh.NewSignerFromSigner(authority)
	if err != nil {
		t.Fatal(err)
	}
	_, key := newSigner(t, "ed25519")
	line := func(k ssh.PublicKey) string { return string(ssh.MarshalAuthorizedKey(k)) }
	tests := []struct {
		name   string
		known  string
		change func(*ssh.Certificate)
		ok     bool
	}{
		{name: "authority", known: "@cert-authority *.org " + line(authorityKey), ok: true},
		{name: "authority for others", known: "@cert-authority *.net " + line(authorityKey)},
		{name: "authority is no host key", known: "node.org " + line(authorityKey)},
		{name: "plain key known", known: "node.org " + line(key), ok: true},
		{name: "wrong principal", known: "@cert-authority * " + line(authorityKey), change: func(c *ssh.Certificate) { c.ValidPrincipals = []string{"other"} }},
		{name: "expired", known: "@cert-authority * " + line(authorityKey), change: func(c *ssh.Certificate) { c.ValidBefore = 1 }},
		{name: "user certificate", known: "@cert-authority * " + line(authorityKey), change: func(c *ssh.Certificate) { c.CertType = ssh.UserCert }},
		{name: "authority revoked", known: "@cert-authority * " + line(authorityKey) + "@revoked * " + line(authorityKey)},
		{name: "key revoked", known: "@cert-authority * " + line(authorityKey) + "@revoked * " + line(key)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cert := &ssh.Certificate{Key: key, CertType: ssh.HostCert, ValidPrincipals: []string{"node.org"}, ValidBefore: ssh.CertTimeInfinity}
			if tt.change != nil {
				tt.change(cert)
			}
			if err := cert.SignCert(rand.Reader, signer); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "known_hosts")
			writeFile(t, file, tt.known, 0o600)
			var log logBook
			cfg := Config{Host: "node.org", UserKnownHostsFile: []string{file}, StrictHostKeyChecking: "yes", Logf: log.logf}.withDefaults()
			checker := newHostKeyChecker(t.Context(), &cfg)
			if err := checker.check("", nil, cert); (err == nil) != tt.ok {
				t.Errorf("got %v; %s", err, log.text())
			}
			algorithms, err := checker.algorithms()
			if err != nil || strings.Contains(tt.known, "cert-authority *") && !strings.Contains(tt.known, ".net") &&
				!strings.HasSuffix(algorithms[0], certSuffix) {
				t.Errorf("algorithms %q %v", algorithms, err)
			}
		})
	}
}

func TestKnownTypesGoFirst(t *testing.T) {
	n := startNode(t, nodeOptions{hostKeyTypes: []string{"ed25519", "ecdsa", "rsa"}})
	lines, err := os.ReadFile(n.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		t.Run(kind, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "known_hosts")
			for line := range strings.Lines(string(lines)) {
				if strings.Contains(line, kind) {
					writeFile(t, file, line, 0o600)
				}
			}
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.UserKnownHostsFile = []string{file}
			n.connect(t, cfg)
			if log.text() != "" {
				t.Errorf("log %q", log.text())
			}
		})
	}
}

func TestHandshakeEndsInWords(t *testing.T) {
	tests := []struct {
		name string
		peer func(net.Conn)
		want string
	}{
		{"closed at once", func(c net.Conn) { c.Close() },
			"kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535"},
		{"closed after its version", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 100))
			fmt.Fprint(c, "SSH-2.0-x\r\n")
			c.Close()
		}, "Connection closed by UNKNOWN port 65535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			finished := make(chan struct{})
			go func() { defer close(finished); tt.peer(theirs) }()
			_, err := NewClient(testContext(t), ours, Config{User: "u", Host: "node"})
			<-finished
			var text *TextError
			if !errors.As(err, &text) || text.Text != tt.want {
				t.Errorf("got %v", err)
			}
		})
	}
}
