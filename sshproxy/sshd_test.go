package sshproxy

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// node is a real sshd with its own keys and configuration. Each connection has a process of its own
// (sshd -i over a socketpair), so nothing listens anywhere.
type node struct {
	dir        string
	config     string
	key        string   // a client key that it accepts
	knownHosts string   // a file that knows it as "node"
	hostKeys   []string // private files
}

// nodeOptions are what tests vary. Lines are appended to sshd_config.
type nodeOptions struct {
	hostKeyTypes []string
	lines        []string
}

func startNode(t *testing.T, opts nodeOptions) *node {
	t.Helper()
	testenv.Need(t, "sshd", "ssh-keygen")
	if os.Getuid() == 0 {
		// The directory that sshd's unprivileged child is locked into.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	n := &node{dir: dir, config: filepath.Join(dir, "sshd_config"), knownHosts: filepath.Join(dir, "known_hosts")}
	if len(opts.hostKeyTypes) == 0 {
		opts.hostKeyTypes = []string{"ed25519"}
	}
	lines := append(opts.lines, "UsePAM no", "StrictModes no", "PidFile none", "LogLevel DEBUG1", "PermitRootLogin yes",
		"AuthorizedKeysFile "+filepath.Join(dir, "authorized_keys"), "Subsystem sftp internal-sftp", "AcceptEnv LAB_*",
		"SetEnv HOME="+dir) // keeps out what the user's shell would start with
	var known strings.Builder
	for _, kind := range opts.hostKeyTypes {
		file, public := writeKey(t, dir, "host_"+kind, kind, "")
		n.hostKeys = append(n.hostKeys, file)
		lines = append(lines, "HostKey "+file)
		fmt.Fprintf(&known, "node %s", ssh.MarshalAuthorizedKey(public))
	}
	writeFile(t, n.knownHosts, known.String(), 0o600)
	var public ssh.PublicKey
	n.key, public = writeKey(t, dir, "id", "ed25519", "")
	n.authorize(t, public)
	writeFile(t, n.config, strings.Join(lines, "\n")+"\n", 0o600)
	return n
}

// authorize adds a key to those that the node accepts.
func (n *node) authorize(t *testing.T, key ssh.PublicKey, options ...string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(n.dir, "authorized_keys"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := strings.TrimSpace(strings.Join(options, ",") + " " + string(ssh.MarshalAuthorizedKey(key)))
	if _, err := fmt.Fprintln(f, line); err != nil {
		t.Fatal(err)
	}
}

// dial starts an sshd on one end of a socketpair and returns the other.
func (n *node) dial(t *testing.T) net.Conn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testenv.Tool(t, "sshd"), "-i", "-f", n.config, "-E", filepath.Join(n.dir, "sshd.log"))
	cmd.Stdin, cmd.Stdout = theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(n.dir, "sshd.log"))
			t.Logf("sshd said:\n%s", log)
		}
	})
	return conn
}

// clientConfig logs in with the node's key; log receives what the user would see.
func (n *node) clientConfig(log *logBook) Config {
	return Config{
		User: currentUser(), Host: "node",
		UserKnownHostsFile: []string{n.knownHosts}, StrictHostKeyChecking: "yes",
		IdentityFile:         []Identity{{Path: n.key, Explicit: true}},
		PubkeyAuthentication: true, PasswordAuthentication: true, KbdInteractiveAuthentication: true,
		Logf: log.logf,
	}
}

// connect returns a client of the node, closed at the test's end.
func (n *node) connect(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := NewClient(testContext(t), n.dial(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// client is connect for a test that doesn't ask what the user sees.
func (n *node) client(t *testing.T) *Client {
	t.Helper()
	return n.connect(t, n.clientConfig(new(logBook)))
}

// openSession returns a session that nothing was started in yet.
func openSession(t *testing.T, c *Client) *Session {
	t.Helper()
	s, err := c.OpenSession(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func currentUser() string {
	u, err := user.Current()
	if err != nil {
		return "root"
	}
	return u.Username
}

// testContext bounds what a test may wait for, far beyond what it takes.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// logBook collects log lines by level.
type logBook struct {
	mu    sync.Mutex
	lines []string // what a user sees at INFO
	debug []string
}

func (l *logBook) logf(level int, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	if level <= 0 {
		l.lines = append(l.lines, line)
	} else {
		l.debug = append(l.debug, line)
	}
}

func (l *logBook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// news is text without the lines about hosts that were new.
func (l *logBook) news() string {
	var lines []string
	for line := range strings.SplitSeq(l.text(), "\n") {
		if !strings.HasPrefix(line, "Warning: Permanently added '") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func (l *logBook) debugText() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.debug, "\n")
}

// answers is a Prompter that answers in order and keeps what it was asked; then it answers "".
type answers struct {
	mu    sync.Mutex
	queue []string
	asked []string
}

func (a *answers) Secret(ctx context.Context, prompt string) (string, error) {
	return a.Question(ctx, prompt)
}

func (a *answers) Confirm(ctx context.Context, prompt string) (bool, error) {
	answer, err := a.Question(ctx, prompt)
	return answer == "yes", err
}

func (a *answers) Question(ctx context.Context, prompt string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, prompt)
	if len(a.queue) == 0 {
		return "", ctx.Err()
	}
	answer := a.queue[0]
	a.queue = a.queue[1:]
	return answer, nil
}

func (a *answers) prompts() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// newSigner returns a fresh key of a kind: ed25519, ecdsa, rsa.
func newSigner(t testing.TB, kind string) (crypto.Signer, ssh.PublicKey) {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

// writeKey writes a private key in OpenSSH's format, without a .pub beside it.
func writeKey(t testing.TB, dir, name, kind, passphrase string) (file string, public ssh.PublicKey) {
	t.Helper()
	key, public := newSigner(t, kind)
	block, err := ssh.MarshalPrivateKey(key, name)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, name)
	writeFile(t, file, string(pem.EncodeToMemory(block)), 0o600)
	if passphrase != "" {
		// One round of the key derivation: the default of 16 is slow under the race detector.
		cmd := exec.Command("ssh-keygen", "-q", "-p", "-a", "1", "-P", "", "-N", passphrase, "-f", file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	return file, public
}

func writeFile(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// run starts a command without a terminal and returns what it wrote and its status.
func run(t *testing.T, c *Client, req SessionRequest) (stdout, stderr string, status int, ok bool) {
	t.Helper()
	var out, errs bytes.Buffer
	req.Stdout, req.Stderr = &out, &errs
	s := openSession(t, c)
	if err := s.Start(testContext(t), req); err != nil {
		t.Fatal(err)
	}
	status, ok = s.Wait()
	return out.String(), errs.String(), status, ok
}
