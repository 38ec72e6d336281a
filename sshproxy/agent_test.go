package sshproxy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"ssm-ssh/internal/testenv"
)

// sshAdd runs ssh-add with an agent and returns what it writes.
func sshAdd(t *testing.T, socket string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Tool(t, "ssh-add"), args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "no identities") {
		t.Fatalf("ssh-add %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestAgentKeyForOneDestination has keys that ssh-agent uses only where the connection is proven to lead to a host
// that they were added for (ssh-add -h), by each kind of key exchange.
func TestAgentKeyForOneDestination(t *testing.T) {
	n := startNode(t, nodeOptions{})
	dir := t.TempDir()
	here, hereKey := writeKey(t, dir, "here", "ed25519", "")
	elsewhere, elsewhereKey := writeKey(t, dir, "elsewhere", "ed25519", "")
	free, _ := writeKey(t, dir, "free", "ed25519", "")
	n.authorize(t, hereKey)
	n.authorize(t, elsewhereKey)
	_, otherHost := newSigner(t, "ed25519")
	hosts := filepath.Join(dir, "hosts")
	known, err := os.ReadFile(n.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, hosts, string(known)+"other "+string(ssh.MarshalAuthorizedKey(otherHost)), 0o600)
	socket := startAgent(t, free)
	sshAdd(t, socket, "-q", "-H", hosts, "-h", "node", here)
	sshAdd(t, socket, "-q", "-H", hosts, "-h", "other", elsewhere)

	for _, exchange := range []string{"curve25519-sha256", "ecdh-sha2-nistp256", "diffie-hellman-group14-sha256",
		"diffie-hellman-group-exchange-sha256"} {
		t.Run(exchange, func(t *testing.T) {
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.AgentSocket, cfg.ForwardAgent, cfg.IdentityFile = socket, true, nil
			cfg.KexAlgorithms, cfg.BatchMode = []string{exchange}, true
			c := n.connect(t, cfg)
			// What the node may see of the agent are the keys that may be used from there.
			out, errs, _, _ := run(t, c, SessionRequest{Command: "ssh-add -l", ForwardAgent: true})
			if strings.Count(out, "\n") != 1 || !strings.Contains(out, " free ") {
				t.Errorf("the node sees %q %q", out, errs)
			}
			if log.text() != "" {
				t.Errorf("log %q", log.text())
			}
		})
	}
	t.Run("another's", func(t *testing.T) {
		var log logBook
		cfg := n.clientConfig(&log)
		cfg.AgentSocket, cfg.BatchMode, cfg.IdentitiesOnly = socket, true, true
		cfg.IdentityFile = []Identity{{Path: elsewhere, Explicit: true}}
		if err := os.Rename(elsewhere, elsewhere+".away"); err != nil {
			t.Fatal(err)
		}
		writeFile(t, elsewhere+".pub", string(ssh.MarshalAuthorizedKey(elsewhereKey)), 0o600)
		if _, err := NewClient(testContext(t), n.dial(t), cfg); err == nil {
			t.Error("connected")
		}
	})
}

func TestForwardedAgentMayBeAnother(t *testing.T) {
	n := startNode(t, nodeOptions{})
	dir := t.TempDir()
	used, usedKey := writeKey(t, dir, "used", "ed25519", "")
	shown, _ := writeKey(t, dir, "shown", "ed25519", "")
	n.authorize(t, usedKey)
	dead := filepath.Join(dir, "dead")
	tests := []struct{ name, own, other, want string }{
		{"another", startAgent(t, used), startAgent(t, shown), "shown"},
		{"only another", "", startAgent(t, shown), "shown"},
		{"dead", startAgent(t, used), dead, "no SSH_AUTH_SOCK"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.AgentSocket, cfg.ForwardAgent, cfg.ForwardAgentSocket = tt.own, true, tt.other
			c := n.connect(t, cfg)
			out, errs, _, _ := run(t, c, SessionRequest{Command: `test "$SSH_AUTH_SOCK" && ssh-add -l || echo no SSH_AUTH_SOCK`,
				ForwardAgent: true})
			if !strings.Contains(out, tt.want) {
				t.Errorf("got %q %q", out, errs)
			}
		})
	}
}

// TestUnaskedAgentIsAnAttack opens the channel without a session's wish.
func TestUnaskedAgentIsAnAttack(t *testing.T) {
	c := &Client{cfg: Config{AgentSocket: "/nowhere"}.withDefaults()}
	var log logBook
	c.cfg.Logf = log.logf
	channel := new(rejectedChannel)
	c.forwardAgent(channel)
	want := "Warning: ssh server tried agent forwarding.\nWarning: this is probably a break-in attempt by a malicious server."
	if log.text() != want || channel.reason != ssh.Prohibited {
		t.Errorf("log %q, rejected for %v", log.text(), channel.reason)
	}
}

// rejectedChannel is a channel that is opened to be rejected.
type rejectedChannel struct {
	ssh.NewChannel
	reason ssh.RejectionReason
}

func (c *rejectedChannel) Reject(reason ssh.RejectionReason, _ string) error {
	c.reason = reason
	return nil
}

func TestAddKeysToAgent(t *testing.T) {
	n := startNode(t, nodeOptions{})
	dir := t.TempDir()
	secret, secretKey := writeKey(t, dir, "secret", "ed25519", "open sesame")
	n.authorize(t, secretKey)
	writeFile(t, secret+".pub", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(secretKey)))+" me at home\n", 0o644)
	passphrase := "Enter passphrase for key '" + secret + "': "
	leave := "Add key " + secret + " (me at home) to agent?"
	tests := []struct {
		name    string
		how     AddKeys
		noAgent bool
		answers []string
		asked   []string
		held    bool
	}{
		{name: "no", answers: []string{"open sesame"}, asked: []string{passphrase}},
		{name: "yes", how: AddKeys{Add: true}, answers: []string{"open sesame"}, asked: []string{passphrase}, held: true},
		{name: "no agent", how: AddKeys{Add: true}, noAgent: true, answers: []string{"open sesame"}, asked: []string{passphrase}},
		{name: "ask, yes", how: AddKeys{Add: true, Ask: true}, answers: []string{"open sesame", "yes"},
			asked: []string{passphrase, leave}, held: true},
		{name: "ask, no", how: AddKeys{Add: true, Ask: true}, answers: []string{"open sesame", "no"}, asked: []string{passphrase, leave}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log logBook
			user := &answers{queue: tt.answers}
			cfg := n.clientConfig(&log)
			cfg.IdentityFile, cfg.AddKeysToAgent, cfg.Prompt = []Identity{{Path: secret}}, tt.how, user
			if !tt.noAgent {
				cfg.AgentSocket = startAgent(t)
			}
			n.connect(t, cfg)
			if !slices.Equal(user.prompts(), tt.asked) {
				t.Errorf("asked %q, want %q", user.prompts(), tt.asked)
			}
			if tt.noAgent {
				return
			}
			if got := sshAdd(t, cfg.AgentSocket, "-l"); strings.Contains(got, " me at home ") != tt.held {
				t.Errorf("agent has %q", got)
			}
			if tt.held { // the next connection asks nothing
				user.asked = nil
				n.connect(t, cfg)
				if len(user.prompts()) > 0 {
					t.Errorf("asked again: %q", user.prompts())
				}
			}
		})
	}
}

// addedKeys is an agent that only keeps how keys were added.
type addedKeys struct {
	agent.ExtendedAgent
	added []agent.AddedKey
}

func (a *addedKeys) Add(key agent.AddedKey) error {
	a.added = append(a.added, key)
	return nil
}

func TestAddedKeysAreConstrained(t *testing.T) {
	file, _ := writeKey(t, t.TempDir(), "key", "ecdsa", "")
	for _, how := range []AddKeys{{Add: true}, {Add: true, Confirm: true}, {Add: true, Lifetime: 90 * time.Minute}} {
		cfg, held := Config{AddKeysToAgent: how}.withDefaults(), new(addedKeys)
		k := &keyring{ctx: context.Background(), cfg: &cfg, agent: &agentConn{ExtendedAgent: held}}
		if _, err := k.load(Identity{Path: file}); err != nil {
			t.Fatal(err)
		}
		if len(held.added) != 1 || held.added[0].ConfirmBeforeUse != how.Confirm || held.added[0].Comment != file ||
			time.Duration(held.added[0].LifetimeSecs)*time.Second != how.Lifetime {
			t.Errorf("%+v: added %+v", how, held.added)
		}
	}
}
