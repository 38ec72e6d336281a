package e2e

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// encryptedKey is a copy of the lab's key that needs a passphrase.
func (r *rig) encryptedKey(passphrase string) string {
	r.Helper()
	key, err := os.ReadFile(r.labEnv("SSM_SSH_LAB_KEY"))
	if err != nil {
		r.Fatal(err)
	}
	path := r.path("encrypted")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		r.Fatal(err)
	}
	if got := r.run(exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", path)); got.status != 0 {
		r.Fatalf("ssh-keygen: %+v", got)
	}
	return path
}

// TestQuestionsOnTheTerminal has the master, a process of its own, ask on its caller's terminal: for
// a new host key and for a passphrase. The second call asks nothing.
func TestQuestionsOnTheTerminal(t *testing.T) {
	testenv.Need(t, "ssh-keygen")
	r := newRig(t, lab.Options{})
	key, known := r.encryptedKey("open sesame"), r.path("known_hosts")
	r.writeConfig("config", r.target(), "IdentityFile "+key, "IdentitiesOnly yes", "UserKnownHostsFile "+known)
	r.env = append(r.env, "SSM_SSH_CONFIG="+r.path("config"))

	term := r.onTerminal(r.target(), "echo in")
	term.expect("can't be established.")
	term.expect("Are you sure you want to continue connecting (yes/no/[fingerprint])? ")
	io.WriteString(term, "yes\n")
	term.expect("Permanently added")
	term.expect("Enter passphrase for key '" + key + "': ")
	io.WriteString(term, "open sesame\n")
	term.expect("in\r\n")
	if err := term.cmd.Wait(); err != nil {
		t.Error(err)
	}
	// The name may be hashed: Debian's ssh_config says so.
	if text, err := os.ReadFile(known); err != nil || strings.Count(string(text), " ssh-ed25519 ") != 1 {
		t.Errorf("known_hosts: %q, %v", text, err)
	}
	r.want(r.ssh(r.target(), "echo again"), 0, "again\n", "")
	r.wantSessions(1)
}

func TestAgent(t *testing.T) {
	testenv.Need(t, "ssh-agent", "ssh-add")
	r := newRig(t, lab.Options{})
	socket := r.path("agent")
	agent := r.prepare(exec.Command("ssh-agent", "-D", "-a", socket))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { agent.Process.Kill(); agent.Wait() }()
	r.env = append(r.env, "SSH_AUTH_SOCK="+socket)
	r.await("the agent", func() bool {
		return r.run(exec.Command("ssh-add", "-q", r.labEnv("SSM_SSH_LAB_KEY"))).status == 0
	})
	r.writeConfig("config", r.target(), "IdentityFile none", "UserKnownHostsFile "+r.labEnv("SSM_SSH_LAB_KNOWN_HOSTS"))
	r.env = append(r.env, "SSM_SSH_CONFIG="+r.path("config"))
	r.want(r.ssh(r.target(), "echo in"), 0, "in\n", "")
	got := r.ssh("-A", r.target(), "ssh-add -l | wc -l; test -S \"$SSH_AUTH_SOCK\" && echo forwarded")
	r.want(got, 0, "1\nforwarded\n", "")
	r.wantSessions(2) // forwarding the agent is a wish that is not shared
}
