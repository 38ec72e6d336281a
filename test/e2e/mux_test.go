package e2e

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// stock is a command line of OpenSSH's own ssh that leads nowhere but through our control socket:
// the host doesn't resolve.
func stock(path string, args ...string) *exec.Cmd {
	return exec.Command("ssh", append([]string{"-F", "none", "-S", path, "-o", "ControlMaster=no"}, args...)...)
}

func TestStockClientsRideOurMaster(t *testing.T) {
	testenv.Need(t, "ssh", "sftp", "scp")
	r := newRig(t, lab.Options{})
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	path := r.socket()
	r.want(r.run(stock(path, "no.such.host", "echo out; echo err >&2; exit 7")), 7, "out\n", "err\n")
	cat := stock(path, "x", "cat")
	cat.Stdin = strings.NewReader("through\n")
	r.want(r.run(cat), 0, "through\n", "")

	data := make([]byte, 1<<20)
	rand.Read(data)
	local, copied := r.path("local"), r.path("copied")
	if err := os.WriteFile(local, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	batch := exec.Command("sftp", "-F", "none", "-o", "ControlPath="+path, "-b", "-", "[x]")
	batch.Stdin = strings.NewReader("put " + local + " " + copied + "\nget " + copied + " " + r.path("back") + "\n")
	if got := r.run(batch); got.status != 0 {
		t.Errorf("sftp: %+v", got)
	}
	for _, args := range [][]string{{}, {"-O"}} {
		to := append([]string{"-F", "none", "-o", "ControlPath=" + path}, args...)
		if got := r.run(exec.Command("scp", append(to, local, "[x]:"+copied+strings.Join(args, ""))...)); got.status != 0 {
			t.Errorf("scp %v: %+v", args, got)
		}
	}
	for _, name := range []string{"copied", "back", "copied-O"} {
		if got, err := os.ReadFile(r.path(name)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	r.wantSessions(1)
}

func TestRsyncRidesOurMaster(t *testing.T) {
	testenv.Need(t, "rsync")
	r := newRig(t, lab.Options{})
	if err := os.Chmod(r.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	from := filepath.Join(r.dir, "from")
	for _, name := range []string{"a", "b/c", "b/d"} {
		file := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.run(exec.Command("rsync", "-r", "-e", binary, from+"/", r.target()+":"+r.path("to"))); got.status != 0 {
		t.Fatalf("rsync up: %+v", got)
	}
	if got := r.run(exec.Command("rsync", "-r", "-e", binary, r.target()+":"+r.path("to")+"/", r.path("back"))); got.status != 0 {
		t.Fatalf("rsync down: %+v", got)
	}
	if got, err := os.ReadFile(r.path("back/b/c")); err != nil || string(got) != "b/c" {
		t.Errorf("copied file: %q, %v", got, err)
	}
	r.wantSessions(1)
}

func TestOurClientRidesAStockMaster(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	path := r.path("stock")
	master := exec.Command("ssh", "-F", "none", "-M", "-N", "-S", path, "-o", "ControlPersist=no", "-i", r.labEnv("SSM_SSH_LAB_KEY"),
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-p", r.lab.Node(0).SSHPort(),
		r.labEnv("SSM_SSH_LAB_USER")+"@127.0.0.1")
	r.prepare(master)
	if err := master.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { master.Process.Kill(); master.Wait() }()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if _, err := os.Lstat(path); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the stock master has not come up")
		}
	}
	r.want(r.ssh("-S", path, "no.such.host", "echo out; echo err >&2; exit 7"), 7, "out\n", "err\n")
	cat := exec.Command(binary, "-S", path, "x", "cat")
	cat.Stdin = strings.NewReader("through\n")
	r.want(r.run(cat), 0, "through\n", "")
	if got := r.ssh("-S", path, "-O", "check", "x"); got.status != 0 || !strings.HasPrefix(got.stderr, "Master running (pid=") {
		t.Errorf("check: %+v", got)
	}
	r.want(r.ssh("-S", path, "-O", "exit", "x"), 0, "", "Exit request sent.\r\n")
	r.wantSessions(0)
}

// labEnv is one variable of the lab's environment.
func (r *rig) labEnv(name string) string {
	for _, kv := range r.lab.Env() {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	r.Fatalf("the lab sets no %s", name)
	return ""
}

func TestControlCommands(t *testing.T) {
	r := newRig(t, lab.Options{})
	path := r.path("cp")
	options := []string{"-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", "ControlPath=" + path}
	with := func(args ...string) result { return r.ssh(append(options, args...)...) }
	r.want(with("-O", "check", r.target()), 255, "", "Control socket connect("+path+"): No such file or directory\r\n")
	r.wantSessions(0)
	r.want(with(r.target(), "echo hi"), 0, "hi\n", "")
	if got := with("-O", "check", r.target()); got.status != 0 || !strings.HasPrefix(got.stderr, "Master running (pid=") {
		t.Errorf("check: %+v", got)
	}
	r.want(with("-O", "stop", r.target()), 0, "", "Stop listening request sent.\r\n")
	if c := r.settled(); c.LiveSessions != 0 {
		t.Errorf("%d sessions left after -O stop", c.LiveSessions)
	}
	r.want(with(r.target(), "echo hi"), 0, "hi\n", "")
	r.want(with("-O", "exit", r.target()), 0, "", "Exit request sent.\r\n")
	if c := r.settled(); c.LiveSessions != 0 {
		t.Errorf("%d sessions left after -O exit", c.LiveSessions)
	}
	r.wantSessions(2)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
}

func TestPersistEndsTheSession(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.want(r.ssh("-o", "ControlPersist=3s", r.target(), "true"), 0, "", "")
	if c := r.lab.Counts(); c.LiveSessions != 1 {
		t.Errorf("%d sessions right after the command, want 1", c.LiveSessions)
	}
	if c := r.settled(); c.LiveSessions != 0 {
		t.Errorf("%d sessions left", c.LiveSessions)
	}
	// The call follows the end that the node has agreed to.
	r.await("TerminateSession", func() bool { return r.lab.Counts().TerminateSession > 0 })
}

// TestNewestCredentialsAreUsed has a master's credentials expire after a second client has handed it
// its own: a lost websocket must still be replaced, which AWS is asked for.
func TestNewestCredentialsAreUsed(t *testing.T) {
	r := newRig(t, lab.Options{})
	path := r.path("cp")
	r.want(r.ssh("-S", path, r.target(), "true"), 0, "", "")
	r.lab.Faults().FailAPI("ResumeSession", "ExpiredTokenException", 1)
	r.want(r.ssh("-S", path, r.target(), "true"), 0, "", "")
	r.lab.Faults().CutClients()
	r.want(r.ssh("-S", path, r.target(), "echo back"), 0, "back\n", "")
	if c := r.lab.Counts(); c.APIErrors != 1 || c.ResumeSession != 1 {
		t.Errorf("%d refused calls and %d ResumeSession calls, want one and another", c.APIErrors, c.ResumeSession)
	}
	r.want(r.ssh("-S", path, "-O", "exit", r.target()), 0, "", "Exit request sent.\r\n")
	if c := r.settled(); c.LiveSessions != 0 {
		t.Errorf("%d sessions left", c.LiveSessions)
	}
}
