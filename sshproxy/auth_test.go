package sshproxy

import (
	"context"
	"crypto/rand"
	"encoding/pem"
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
	"golang.org/x/crypto/ssh/agent"

	"ssm-ssh/internal/testenv"
)

// startAgent runs a real ssh-agent that holds the given private key files.
func startAgent(t *testing.T, keys ...string) (socket string) {
	t.Helper()
	testenv.Need(t, "ssh-agent", "ssh-add")
	dir, err := os.MkdirTemp("", "agent") // short: a socket's path has a limit
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	cmd := exec.Command(testenv.Tool(t, "ssh-agent"), "-D", "-a", socket)
	out, err := cmd.StdoutPipe() // the agent speaks once it listens
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		add := exec.Command("ssh-add", "-q", key)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("ssh-add: %v: %s", err, out)
		}
	}
	return socket
}

// certify writes a user certificate for key, signed by an authority that the node trusts.
func (n *node) certify(t *testing.T, path string, key ssh.PublicKey) {
	t.Helper()
	authority, authorityKey := newSigner(t, "ed25519")
	n.authorize(t, authorityKey, "cert-authority")
	signer, err := ssh.NewSignerFromSigner(authority)
	if err != nil {
		t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: key, CertType: ssh.UserCert, KeyId: "test", ValidPrincipals: []string{currentUser()},
		ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, string(ssh.MarshalAuthorizedKey(cert)), 0o600)
}

func TestPublicKeys(t *testing.T) {
	n := startNode(t, nodeOptions{})
	dir := t.TempDir()
	refused, _ := writeKey(t, dir, "refused", "ed25519", "never asked")
	secret, secretKey := writeKey(t, dir, "secret", "ed25519", "open sesame")
	rsaFile, rsaKey := writeKey(t, dir, "rsa", "rsa", "")
	inAgent, agentKey := writeKey(t, dir, "agent", "ecdsa", "")
	certified, certKey := writeKey(t, dir, "certified", "ed25519", "")
	explicitCert := filepath.Join(dir, "explicit.pub")
	for _, key := range []ssh.PublicKey{secretKey, rsaKey, agentKey} {
		n.authorize(t, key)
	}
	n.certify(t, certified+"-cert.pub", certKey)
	n.certify(t, explicitCert, certKey)
	writeFile(t, filepath.Join(dir, "only.pub"), string(ssh.MarshalAuthorizedKey(agentKey)), 0o600)
	pemFile := filepath.Join(dir, "pem")
	pemKey := writePEM(t, pemFile)
	n.authorize(t, pemKey)
	socket := startAgent(t, inAgent)
	if err := os.Remove(inAgent); err != nil {
		t.Fatal(err)
	}
	prompt := "Enter passphrase for key '" + secret + "': "

	tests := []struct {
		name    string
		files   []string
		certs   []string
		agent   string
		only    bool
		batch   bool
		answers []string
		asked   []string
		log     string
		denied  bool
	}{
		{name: "plain file", files: []string{n.key}},
		{name: "rsa", files: []string{rsaFile}},
		{name: "old format, no public half", files: []string{pemFile}},
		{name: "refused key is not opened", files: []string{refused, n.key}},
		{name: "passphrase", files: []string{secret}, answers: []string{"open sesame"}, asked: []string{prompt}},
		{name: "second try", files: []string{secret}, answers: []string{"x", "open sesame"}, asked: []string{prompt, prompt}},
		{name: "three wrong, next key", files: []string{secret, n.key}, answers: []string{"x", "y", "z"}, asked: []string{prompt, prompt, prompt}},
		{name: "empty passphrase skips", files: []string{secret, n.key}, asked: []string{prompt}},
		{name: "batch asks nothing", files: []string{secret, n.key}, batch: true},
		{name: "missing file", files: []string{dir + "/absent", n.key}, log: "no such identity: " + dir + "/absent: No such file or directory"},
		{name: "none", files: []string{"none"}, denied: true},
		{name: "agent", agent: socket},
		{name: "agent, not named", agent: socket, only: true, denied: true},
		{name: "agent by public half", files: []string{dir + "/only.pub"}, agent: socket, only: true},
		{name: "agent by name of the file", files: []string{dir + "/only"}, agent: socket, only: true},
		{name: "no agent there", files: []string{n.key}, agent: dir + "/no-socket"},
		{name: "certificate beside the key", files: []string{certified}},
		{name: "certificate named", files: []string{certified}, certs: []string{explicitCert}},
		{name: "certificate without its key", certs: []string{explicitCert}, denied: true, log: "Load key \"" + explicitCert + "\": invalid format"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log logBook
			user := &answers{queue: tt.answers}
			cfg := n.clientConfig(&log)
			cfg.IdentityFile, cfg.CertificateFile = nil, tt.certs
			for _, file := range tt.files {
				cfg.IdentityFile = append(cfg.IdentityFile, Identity{Path: file, Explicit: true})
			}
			cfg.AgentSocket, cfg.IdentitiesOnly, cfg.BatchMode, cfg.Prompt = tt.agent, tt.only, tt.batch, user
			cfg.PreferredAuthentications = []string{"publickey"}
			c, err := NewClient(testContext(t), n.dial(t), cfg)
			if err == nil {
				c.Close()
			}
			want := "<nil>"
			if tt.denied {
				want = currentUser() + "@node: Permission denied (publickey,password,keyboard-interactive)."
			}
			if got := fmt.Sprint(err); got != want {
				t.Errorf("got %s, want %s\n%s", got, want, log.debugText())
			}
			if !slices.Equal(user.prompts(), tt.asked) {
				t.Errorf("asked %q, want %q", user.prompts(), tt.asked)
			}
			if log.news() != tt.log {
				t.Errorf("log %q, want %q", log.news(), tt.log)
			}
		})
	}
}

// writePEM writes a key in the format before OpenSSH's own, which has no public half in clear.
func writePEM(t *testing.T, path string) ssh.PublicKey {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ecdsa", "-m", "PEM", "-N", "", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	data, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path + ".pub"); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), "EC PRIVATE KEY") {
		block, _ := pem.Decode(data)
		t.Fatalf("not in the old format: %v %v", block, err)
	}
	return parsePublicFile(data)
}

// TestKeyWordsAreStock runs the same unusable keys past OpenSSH's client and ours.
func TestKeyWordsAreStock(t *testing.T) {
	n := startNode(t, nodeOptions{})
	dir := t.TempDir()
	open, openKey := writeKey(t, dir, "open", "ed25519", "")
	n.authorize(t, openKey)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(dir, "garbage")
	writeFile(t, garbage, "no key\n", 0o600)
	for _, file := range []string{open, filepath.Join(dir, "absent"), garbage} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want := n.stockSSH(t, "BatchMode=yes", "IdentitiesOnly=yes", "IdentityFile="+file, "UserKnownHostsFile="+n.knownHosts,
				"PreferredAuthentications=publickey", "IdentityAgent=none")
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.IdentityFile, cfg.BatchMode = []Identity{{Path: file, Explicit: true}}, true
			_, err := NewClient(testContext(t), n.dial(t), cfg)
			if err == nil {
				t.Fatal("connected")
			}
			// Its reason for garbage depends on the cryptographic library.
			want = strings.ReplaceAll(want, "error in libcrypto", "invalid format")
			if got := log.text(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// serve runs an SSH server of this process on one end of a connection and returns the other.
func serve(t *testing.T, config *ssh.ServerConfig) net.Conn {
	t.Helper()
	host, _ := newSigner(t, "ed25519")
	signer, err := ssh.NewSignerFromSigner(host)
	if err != nil {
		t.Fatal(err)
	}
	config.AddHostKey(signer)
	ours, theirs := tcpPair(t)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		conn, chans, reqs, err := ssh.NewServerConn(theirs, config)
		if err != nil {
			theirs.Close()
			return
		}
		go ssh.DiscardRequests(reqs)
		for nc := range chans {
			_ = nc.Reject(ssh.Prohibited, "")
		}
		_ = conn.Wait()
	}()
	t.Cleanup(func() { ours.Close(); <-finished })
	return ours
}

func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestPasswordsAndQuestions(t *testing.T) {
	password := func(_ ssh.ConnMetadata, pw []byte) (*ssh.Permissions, error) {
		if string(pw) == "right" {
			return nil, nil
		}
		return nil, errors.New("wrong")
	}
	questions := func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		got, err := ask("Title", "Do\x1b[2J this", []string{"Code: ", "Name: "}, []bool{false, true})
		if err != nil || !slices.Equal(got, []string{"1", "2"}) {
			return nil, errors.New("wrong")
		}
		return nil, nil
	}
	both := func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
		return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{KeyboardInteractiveCallback: questions}}
	}
	pw := "u@node's password: "
	again := "Permission denied, please try again."
	kbd := []string{"(u@node) Code: ", "(u@node) Name: "}
	kbdLog := "Title\nDo\\033[2J this"
	tests := []struct {
		name    string
		server  ssh.ServerConfig
		change  func(*Config)
		answers []string
		asked   []string
		log     string
		err     string
	}{
		{name: "password", server: ssh.ServerConfig{PasswordCallback: password}, answers: []string{"right"}, asked: []string{pw}},
		{name: "second password", server: ssh.ServerConfig{PasswordCallback: password}, answers: []string{"x", "right"},
			asked: []string{pw, pw}, log: again},
		{name: "three wrong", server: ssh.ServerConfig{PasswordCallback: password}, answers: []string{"x", "y", "z", "right"},
			asked: []string{pw, pw, pw}, log: again + "\n" + again, err: "u@node: Permission denied (password)."},
		{name: "one prompt", server: ssh.ServerConfig{PasswordCallback: password}, answers: []string{"x"},
			change: func(c *Config) { c.NumberOfPasswordPrompts = 1 }, asked: []string{pw}, err: "u@node: Permission denied (password)."},
		{name: "batch", server: ssh.ServerConfig{PasswordCallback: password},
			change: func(c *Config) { c.BatchMode = true }, err: "u@node: Permission denied (password)."},
		{name: "switched off", server: ssh.ServerConfig{PasswordCallback: password},
			change: func(c *Config) { c.PasswordAuthentication = false }, err: "u@node: Permission denied (password)."},
		{name: "alias in the prompt", server: ssh.ServerConfig{PasswordCallback: password}, answers: []string{"right"},
			change: func(c *Config) { c.HostKeyAlias = "alias" }, asked: []string{"u@alias's password: "}},
		{name: "questions", server: ssh.ServerConfig{KeyboardInteractiveCallback: questions}, answers: []string{"1", "2"},
			asked: kbd, log: kbdLog},
		{name: "preferred order", server: ssh.ServerConfig{PasswordCallback: password, KeyboardInteractiveCallback: questions},
			change:  func(c *Config) { c.PreferredAuthentications = []string{"password", "keyboard-interactive"} },
			answers: []string{"right"}, asked: []string{pw}},
		{name: "partial success", server: ssh.ServerConfig{PasswordCallback: both}, answers: []string{"any", "1", "2"},
			asked: append([]string{pw}, kbd...), log: kbdLog},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log logBook
			user := &answers{queue: tt.answers}
			cfg := Config{User: "u", Host: "node", UserKnownHostsFile: []string{os.DevNull}, StrictHostKeyChecking: "no", Prompt: user, Logf: log.logf,
				PubkeyAuthentication: true, PasswordAuthentication: true, KbdInteractiveAuthentication: true}
			if tt.change != nil {
				tt.change(&cfg)
			}
			c, err := NewClient(testContext(t), serve(t, &tt.server), cfg)
			if err == nil {
				defer c.Close()
			}
			if got := fmt.Sprint(err); got != tt.err && !(err == nil && tt.err == "") {
				t.Errorf("got %s, want %s", got, tt.err)
			}
			if !slices.Equal(user.prompts(), tt.asked) {
				t.Errorf("asked %q, want %q", user.prompts(), tt.asked)
			}
			if log.news() != tt.log {
				t.Errorf("log %q, want %q", log.news(), tt.log)
			}
		})
	}
}

// interrupted is a Prompter whose user gives up.
type interrupted struct{ asked int }

var errGaveUp = errors.New("interrupted")

func (i *interrupted) Secret(context.Context, string) (string, error) {
	i.asked++
	return "", errGaveUp
}
func (i *interrupted) Question(ctx context.Context, prompt string) (string, error) {
	return i.Secret(ctx, prompt)
}
func (i *interrupted) Confirm(ctx context.Context, prompt string) (bool, error) {
	_, err := i.Secret(ctx, prompt)
	return false, err
}

func TestInterruptedQuestionEndsAuthentication(t *testing.T) {
	wrong := func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("wrong") }
	user := &interrupted{}
	_, err := NewClient(testContext(t), serve(t, &ssh.ServerConfig{PasswordCallback: wrong}),
		Config{User: "u", Host: "node", UserKnownHostsFile: []string{os.DevNull}, StrictHostKeyChecking: "no", Prompt: user, PasswordAuthentication: true})
	if !errors.Is(err, errGaveUp) || err.Error() != "ssh handshake: ssh: handshake failed: interrupted" || user.asked != 1 {
		t.Errorf("got %v after %d questions", err, user.asked)
	}
}

func TestTooManyFailuresIsTheNodesWord(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"MaxAuthTries 2"}})
	dir := t.TempDir()
	var log logBook
	cfg := n.clientConfig(&log)
	cfg.IdentityFile = nil
	for i := range 4 {
		file, _ := writeKey(t, dir, fmt.Sprint("key", i), "ed25519", "")
		cfg.IdentityFile = append(cfg.IdentityFile, Identity{Path: file})
	}
	_, err := NewClient(testContext(t), n.dial(t), cfg)
	want := "Received disconnect from UNKNOWN port 65535:2: Too many authentication failures\nDisconnected from UNKNOWN port 65535"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestHandshakeEndsWithItsContext(t *testing.T) {
	ours, theirs := tcpPair(t)
	defer theirs.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errGaveUp)
	if _, err := NewClient(ctx, ours, Config{User: "u", Host: "node"}); !errors.Is(err, errGaveUp) {
		t.Errorf("got %v", err)
	}
	if _, err := ours.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection is open: %v", err)
	}
}

func TestAgentForwarding(t *testing.T) {
	n := startNode(t, nodeOptions{})
	other, _ := writeKey(t, t.TempDir(), "forwarded", "ed25519", "")
	for _, allowed := range []bool{true, false} {
		t.Run(fmt.Sprint(allowed), func(t *testing.T) {
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.AgentSocket, cfg.ForwardAgent = startAgent(t, other), allowed
			c := n.connect(t, cfg)
			out, errs, _, ok := run(t, c, SessionRequest{Command: "ssh-add -l", ForwardAgent: true})
			if !ok || strings.Contains(out, "forwarded") != allowed {
				t.Errorf("got %q %q", out, errs)
			}
		})
	}
}

func TestRSANeedsNoSHA1(t *testing.T) {
	_, key := newSigner(t, "rsa")
	tests := []struct {
		name     string
		accepted []string
		want     []string
	}{
		{"default", nil, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}},
		{"one", []string{ssh.KeyAlgoRSASHA256}, []string{ssh.KeyAlgoRSASHA256}},
		{"old", []string{ssh.KeyAlgoRSA}, []string{ssh.KeyAlgoRSA}},
		{"others", []string{ssh.KeyAlgoED25519}, []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := acceptedAlgorithms(&Config{PubkeyAcceptedAlgorithms: tt.accepted}, key); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if signatureFlags(ssh.KeyAlgoRSASHA512) != agent.SignatureFlagRsaSha512 || signatureFlags(ssh.KeyAlgoED25519) != 0 {
		t.Error("wrong flags for the agent")
	}
}
