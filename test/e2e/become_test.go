package e2e

import (
	"os"
	"strings"
	"testing"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// askingSudo stands for sudo on the node: as that, it asks on stderr with the prompt that it was given, reads the password
// from stdin and runs what comes after its options. The machine's own would need a rule for the login.
const askingSudo = `#!/bin/sh
while :; do
	case $1 in
	-p) prompt=$2; shift 2 ;;
	-u) shift 2 ;;
	-*) shift ;;
	*) break ;;
	esac
done
printf %s "$prompt" >&2
read -r password
test "$password" = open || { echo "Sorry, try again." >&2; exit 1; }
exec "$@"
`

// TestBecomeInTheQueue: the first contact with a node is a task with become and pipelining, and waits for its turn. The
// lines that say so on stderr must be none of the prompt that Ansible looks for, nor of the module's JSON.
func TestBecomeInTheQueue(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ansible-playbook")
	hosts, perSecond := 14, 0.5
	if testing.Short() {
		hosts = 6
	}
	r := newRig(t, lab.Options{Nodes: hosts, InProcessSSHD: true})
	r.open()
	book := "- hosts: nodes\n  gather_facts: false\n  become: true\n  tasks:\n    - ping:\n      register: answer\n    - assert: {that: answer.ping == 'pong'}\n"
	for name, text := range map[string]string{"sudo": askingSudo, "book.yml": book} {
		if err := os.WriteFile(r.path(name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r.lab.Faults().Set(lab.FaultSet{API: map[string]lab.APIFault{"StartSession": {Code: "ThrottlingException", PerSecond: perSecond}}})
	// Ansible gives up on a prompt after its time-out, which lines on stderr begin anew.
	got := r.playbook(r.path("book.yml"), "ANSIBLE_PIPELINING=True", "ANSIBLE_FORKS=50", "ANSIBLE_TIMEOUT=10",
		"ANSIBLE_BECOME_EXE="+r.path("sudo"), "ANSIBLE_BECOME_PASSWORD_FILE="+r.password())
	r.wantRecap(got)
	if c := r.lab.Counts(); c.StartSession != int64(hosts) || c.APIErrors == 0 {
		t.Errorf("%d sessions started, %d calls refused", c.StartSession, c.APIErrors)
	}
	if strings.Contains(got.stdout, "waiting about") {
		t.Error("the wait is in a task's result")
	}
}

// password writes the file that Ansible reads the password from.
func (r *rig) password() string {
	if err := os.WriteFile(r.path("password"), []byte("open\n"), 0o600); err != nil {
		r.Fatal(err)
	}
	return r.path("password")
}
