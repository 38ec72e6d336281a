package lab

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

const (
	rsaBits  = 2048
	testUser = "tester" // used as login when we are root and it exists
)

// hostKey is one of a node's keys.
type hostKey struct {
	path   string // of the private half
	public string // authorized_keys form, no comment
	signer ssh.Signer
}

// newKey makes a key pair file in OpenSSH's format, path and path.pub.
func newKey(path string, private crypto.Signer) (hostKey, error) {
	block, err := ssh.MarshalPrivateKey(private, "ssm-ssh lab")
	if err != nil {
		return hostKey{}, err
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		return hostKey{}, err
	}
	public := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return hostKey{}, err
	}
	return hostKey{path, public, signer}, os.WriteFile(path+".pub", []byte(public+"\n"), 0o644)
}

// keyKinds are those that sshd makes for a machine, the cheapest first.
var keyKinds = []struct {
	name string
	make func() (crypto.Signer, error)
}{
	{"ed25519", func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}},
	{"ecdsa", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	{"rsa", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, rsaBits) }},
}

// newHostKeys makes as many of a node's keys, of as many kinds.
func newHostKeys(dir string, n int) ([]hostKey, error) {
	var keys []hostKey
	for _, kind := range keyKinds[:n] {
		private, err := kind.make()
		if err != nil {
			return nil, fmt.Errorf("making host keys: %w", err)
		}
		key, err := newKey(filepath.Join(dir, "ssh_host_"+kind.name+"_key"), private)
		if err != nil {
			return nil, fmt.Errorf("making host keys: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// writeFiles writes everything that clients need: the key is there already.
func (l *Lab) writeFiles(caPEM []byte) error {
	var known, config, inventory strings.Builder
	inventory.WriteString("[nodes]\n")
	for _, n := range l.nodes {
		port := n.SSHPort()
		for _, key := range n.sshd.hostKeys() {
			// The name of a host at another port than 22 is bracketed (sshd(8), SSH_KNOWN_HOSTS).
			fmt.Fprintf(&known, "%s,[%s]:%s %s\n", n.id, n.id, port, key)
		}
		fmt.Fprintf(&config, "Host %s\n    Port %s\n    User %s\n    IdentityFile \"%s\"\n    UserKnownHostsFile \"%s\"\n",
			n.id, port, l.user, l.path("id_ed25519"), l.path("known_hosts"))
		inventory.WriteString(n.id + "\n")
	}
	files := map[string]string{"ca.pem": string(caPEM), "known_hosts": known.String(), "config": config.String(),
		"inventory.ini": inventory.String(), "aws_config": "[default]\nregion = " + Region + "\n",
		"aws_credentials": "[default]\naws_access_key_id = " + l.keys.keyID + "\naws_secret_access_key = " + l.keys.secret + "\n"}
	for name, text := range files {
		if err := os.WriteFile(l.path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) path(name string) string { return filepath.Join(l.dir, name) }

// loginUser returns whom sshd can log in: the current user, and for root a test user if there is
// one that sshd lets in.
func loginUser(logf func(int, string, ...any)) (string, error) {
	me, err := user.Current()
	if err != nil {
		return "", err
	}
	if os.Geteuid() != 0 {
		return me.Username, nil
	}
	if _, err := user.Lookup(testUser); err != nil {
		return me.Username, nil
	}
	if locked(testUser) {
		logf(0, "lab: account %s is locked for sshd (password field begins with !); nodes take %s", testUser, me.Username)
		return me.Username, nil
	}
	return testUser, nil
}

// locked says whether sshd without PAM refuses the account (auth.c: allowed_user).
func locked(name string) bool {
	f, err := os.Open("/etc/shadow")
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			return strings.HasPrefix(rest, "!")
		}
	}
	return false
}

// newNodes makes the nodes with their sshd running, all at the same time.
func (l *Lab) newNodes(ctx context.Context) error {
	binary := findSSHD()
	if binary == "" && !l.opts.InProcessSSHD {
		l.opts.Logf(0, "lab: no sshd is installed; nodes run an SSH server within this process")
	}
	if binary != "" && !l.opts.InProcessSSHD {
		if err := separationFolder(); err != nil {
			return err
		}
	}
	errs := make(chan error, l.opts.Nodes) // capacity: one result per node
	for range l.opts.Nodes {
		n := &Node{lab: l, id: "mi-" + randomHex(17), agentUp: true, workers: make(map[string]*worker)}
		n.life, n.down = context.WithCancelCause(l.ctx)
		l.nodes = append(l.nodes, n)
	}
	for i, n := range l.nodes {
		go func() { errs <- l.startNode(ctx, n, l.path(fmt.Sprintf("node%d", i+1)), binary) }()
	}
	var first error
	for range l.nodes {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (l *Lab) startNode(ctx context.Context, n *Node, dir, binary string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	light, kinds := binary == "" || l.opts.InProcessSSHD, len(keyKinds)
	if light {
		kinds = 1 // a key of RSA takes longer to make than all else of such a node
	}
	keys, err := newHostKeys(dir, kinds)
	if err != nil {
		return err
	}
	if light {
		n.sshd = newInProcess(keys, l.clientKey.signer.PublicKey(), l.user, l.opts.Logf)
	} else {
		n.sshd = &sshdProcess{binary: binary, dir: dir, node: n.id, keys: keys, authKey: l.path("id_ed25519.pub"), logf: l.opts.Logf}
	}
	return n.sshd.start(ctx)
}

// separationFolder makes the folder that root's sshd insists on; elsewhere it is made at boot.
func separationFolder() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.MkdirAll("/run/sshd", 0o755)
}
