package e2e

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// playbook runs ansible-playbook over the program, with nothing of ssh in the inventory, and returns
// what it printed.
func (r *rig) playbook(book string, settings ...string) result {
	r.Helper()
	cmd := exec.Command("ansible-playbook", "-i", r.labEnv("SSM_SSH_LAB_INVENTORY"), book)
	cmd.Env = append([]string{
		"ANSIBLE_SSH_EXECUTABLE=" + binary, "ANSIBLE_NOCOLOR=1", "ANSIBLE_LOCAL_TEMP=" + r.path("local"),
		"ANSIBLE_SSH_CONTROL_PATH_DIR=" + r.path("cp"), "HOME=" + r.dir,
	}, settings...)
	got := r.run(cmd)
	if warning := regexp.MustCompile(`(?m)^\[(WARNING|ERROR)\].*`).FindString(got.stdout + got.stderr); warning != "" {
		r.Errorf("Ansible says %s", warning)
	}
	return got
}

// wantRecap checks that every host is in the recap without a failure.
func (r *rig) wantRecap(got result) {
	r.Helper()
	for _, node := range r.lab.Targets() {
		recap := regexp.MustCompile(`(?m)^` + node + ` .*unreachable=0 +failed=0 `)
		if !recap.MatchString(got.stdout) {
			r.Fatalf("status %d\n%s%s", got.status, got.stdout, got.stderr)
		}
	}
}

func TestExamplePlaybook(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ansible-playbook")
	example, err := filepath.Abs("../../examples/site.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, pipelining := range []string{"False", "True"} {
		t.Run("pipelining "+pipelining, func(t *testing.T) {
			r := newRig(t, lab.Options{Nodes: 3})
			data := make([]byte, 5_000_000)
			rand.Read(data)
			if err := os.WriteFile(r.path("5MB"), data, 0o644); err != nil {
				t.Fatal(err)
			}
			got := r.playbook(example, "ANSIBLE_PIPELINING="+pipelining, "DEMO_FILE="+r.path("5MB"), "DEMO_RESULTS="+r.path("results"))
			r.wantRecap(got)
			r.wantSessions(3)
		})
	}
}

// TestTransferMethods has Ansible copy by each of its methods. Its sftp and scp are OpenSSH's, which
// know nothing of the node but our control socket.
func TestTransferMethods(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "ansible-playbook", "sftp", "scp")
	methods := []string{"sftp", "scp", "piped"}
	if testing.Short() {
		methods = methods[1:2] // sftp is what the example's play uses
	}
	for _, method := range methods {
		t.Run(method, func(t *testing.T) {
			r := newRig(t, lab.Options{})
			book := r.path("book.yml")
			text := fmt.Sprintf(`- hosts: nodes
  gather_facts: false
  tasks:
    - copy: {src: %[1]s, dest: "/tmp/{{ inventory_hostname }}.copied"}
    - fetch: {src: "/tmp/{{ inventory_hostname }}.copied", dest: %[2]s, flat: true}
    - file: {path: "/tmp/{{ inventory_hostname }}.copied", state: absent}
`, r.path("source"), r.path("fetched"))
			data := make([]byte, 300_000)
			rand.Read(data)
			for name, content := range map[string]string{"book.yml": text, "source": string(data)} {
				if err := os.WriteFile(r.path(name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			r.wantRecap(r.playbook(book, "ANSIBLE_SSH_TRANSFER_METHOD="+method))
			if got, err := os.ReadFile(r.path("fetched")); err != nil || string(got) != string(data) {
				t.Errorf("fetched %d bytes, %v", len(got), err)
			}
			r.wantSessions(1)
		})
	}
}

func TestResetConnection(t *testing.T) {
	testenv.Need(t, "ansible-playbook")
	r := newRig(t, lab.Options{})
	book := r.path("book.yml")
	text := "- hosts: nodes\n  gather_facts: false\n  tasks:\n    - raw: echo one\n    - meta: reset_connection\n    - raw: echo two\n"
	if err := os.WriteFile(book, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got := r.playbook(book)
	r.wantRecap(got)
	if strings.Contains(got.stdout, "Failed to reset") {
		t.Error(got.stdout)
	}
	r.wantSessions(2)
}

// TestPlaybookOfManyTasks has one play give 500 tasks to each of five nodes: a session for each node, none left, and
// the nodes' processes and descriptors as before.
func TestPlaybookOfManyTasks(t *testing.T) {
	needProc(t)
	testenv.Need(t, "ansible-playbook")
	nodes, tasks := 5, 500
	if testing.Short() {
		nodes, tasks = 3, 25
	}
	r := newRig(t, lab.Options{Nodes: nodes, Inotify: true})
	r.limit = 30 * time.Minute             // on two cores under the race detector, it has others beside it
	for _, node := range r.lab.Targets() { // the first calls cost the lab what it then keeps
		r.want(r.ssh("-S", "none", node, "true"), 0, "", "")
	}
	r.awaitNoLoad()
	before := r.load()
	began := time.Now()
	got := r.playbook(r.bookOf(tasks), "ANSIBLE_PIPELINING=True")
	r.wantRecap(got)
	t.Logf("%d tasks on %d nodes in %v; then %+v", tasks, nodes, time.Since(began).Round(time.Second), r.load())
	for _, node := range r.lab.Targets() {
		if !strings.Contains(got.stdout, fmt.Sprintf("%-26s : ok=%d ", node, tasks)) {
			t.Errorf("%s: not %d tasks\n%s", node, tasks, got.stdout[strings.LastIndex(got.stdout, "PLAY RECAP"):])
		}
	}
	r.wantSessions(2 * int64(nodes))
	r.endMasters()
	r.awaitLoad("after the play", before)
	r.wantSessions(2 * int64(nodes))
}

// bookOf writes a playbook of as many tasks, of the kinds that go to the node: bare commands, modules whose
// code travels on stdin, and some output.
func (r *rig) bookOf(tasks int) string {
	r.Helper()
	kinds := []string{"raw: test N -ge 0", "command: test N -ge 0", "raw: head -c N /dev/zero", "ping: {data: N}", "raw: echo N >&2"}
	book := "- hosts: nodes\n  gather_facts: false\n  tasks:\n"
	for i := range tasks {
		number := strconv.Itoa(i)
		book += "    - name: task " + number + "\n      " + strings.ReplaceAll(kinds[i%len(kinds)], "N", number) + "\n"
	}
	name := r.path("book.yml")
	if err := os.WriteFile(name, []byte(book), 0o644); err != nil {
		r.Fatal(err)
	}
	return name
}
