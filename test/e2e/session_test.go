package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

func TestCommandsShareOneSession(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.want(r.ssh(r.target(), "echo out; echo err >&2"), 0, "out\n", "err\n")
	for _, status := range []int{0, 1, 5, 126, 127, 254, 255} {
		r.want(r.ssh(r.target(), fmt.Sprintf("exit %d", status)), status, "", "")
	}
	r.want(r.ssh(r.target(), "exit 300"), 44, "", "")
	r.want(r.ssh(r.target(), "kill -9 $$"), 255, "", "")
	r.want(r.ssh(r.target(), "echo", "a   b", "$HOME/x"), 0, "a b "+r.home()+"/x\n", "")
	r.wantSessions(1)
}

// home is the login's home folder on the node.
func (r *rig) home() string {
	return strings.TrimSpace(r.ssh(r.target(), "echo ~").stdout)
}

func TestStdinReachesTheNode(t *testing.T) {
	r := newRig(t, lab.Options{})
	cmd := exec.Command(binary, r.target(), "cat; echo end")
	cmd.Stdin = strings.NewReader("abc")
	r.want(r.run(cmd), 0, "abcend\n", "")
}

func TestNoMultiplexing(t *testing.T) {
	r := newRig(t, lab.Options{})
	for range 2 {
		r.want(r.ssh("-S", "none", r.target(), "echo hi"), 0, "hi\n", "")
	}
	r.wantSessions(2)
	if c := r.settled(); c.LiveSessions != 0 {
		t.Errorf("%d sessions outlive their clients", c.LiveSessions)
	}
}

func TestBulk(t *testing.T) {
	up, down := 200<<20, 20<<20
	if testing.Short() {
		up, down = 8<<20, 1<<20
	}
	r := newRig(t, lab.Options{})
	data := make([]byte, up)
	rand.Read(data)
	cmd := exec.Command(binary, r.target(), "sha256sum")
	cmd.Stdin = bytes.NewReader(data)
	began := time.Now()
	r.want(r.run(cmd), 0, fmt.Sprintf("%x  -\n", sha256.Sum256(data)), "")
	t.Logf("up: %d MB in %v", up>>20, time.Since(began))

	file := r.path("download")
	if err := os.WriteFile(file, data[:down], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	got := r.ssh(r.target(), "cat "+file)
	if got.status != 0 || sha256.Sum256([]byte(got.stdout)) != sha256.Sum256(data[:down]) {
		t.Errorf("download: status %d, %d bytes, %q", got.status, len(got.stdout), got.stderr)
	}
	t.Logf("down: %d MB in %v", down>>20, time.Since(began))
	r.wantSessions(1)
}

func TestColdCallsAtOnceShareOneSession(t *testing.T) {
	r := newRig(t, lab.Options{})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			r.want(r.ssh(r.target(), fmt.Sprintf("echo %d", i)), 0, fmt.Sprintf("%d\n", i), "")
		})
	}
	wg.Wait()
	r.wantSessions(1)
}

func TestThousandCommandsAndFiftyAtOnce(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 50
	}
	r := newRig(t, lab.Options{})
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	before := r.masterUsage()
	for i := range n {
		r.want(r.ssh(r.target(), fmt.Sprintf("echo %d; exit %d", i, i%7)), i%7, fmt.Sprintf("%d\n", i), "")
		if t.Failed() {
			return
		}
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			r.want(r.ssh(r.target(), fmt.Sprintf("echo %d; sleep 0.2; exit 3", i)), 3, fmt.Sprintf("%d\n", i), "")
		})
	}
	wg.Wait()
	r.wantSessions(1)
	r.wantUsage(before)
}

// usage is what a master holds.
type usage struct{ descriptors, threads int }

// socket is the one implicit control socket.
func (r *rig) socket() string {
	r.Helper()
	var found []string
	entries, _ := filepath.Glob(filepath.Join(r.runtime, "ssm-ssh", "*"))
	for _, e := range entries {
		if info, err := os.Lstat(e); err == nil && info.Mode()&os.ModeSocket != 0 {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		r.Fatalf("control sockets: %q", found)
	}
	return found[0]
}

// masterPID asks the master of a control path by stock ssh.
func (r *rig) masterPID(path string) int {
	r.Helper()
	got := r.run(exec.Command("ssh", "-F", "none", "-S", path, "-O", "check", "x"))
	var pid int
	if _, err := fmt.Sscanf(got.stderr, "Master running (pid=%d)", &pid); err != nil {
		r.Fatalf("ssh -O check: %q", got.stderr)
	}
	return pid
}

func (r *rig) masterUsage() usage {
	r.Helper()
	proc := fmt.Sprintf("/proc/%d/", r.masterPID(r.socket()))
	fds, err := os.ReadDir(proc + "fd")
	if err != nil {
		r.Skipf("descriptors of another process can't be counted here: %v", err)
	}
	tasks, _ := os.ReadDir(proc + "task")
	return usage{len(fds), len(tasks)}
}

// wantUsage waits for the master to come back to what it held. Descriptors must be equal; threads,
// which stand in for goroutines seen from outside, are kept by the runtime once made and are
// bounded only.
func (r *rig) wantUsage(before usage) {
	r.Helper()
	var now usage
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		if now = r.masterUsage(); now.descriptors <= before.descriptors {
			break
		}
		<-time.After(50 * time.Millisecond) // the last channel's end is on its way
	}
	r.Logf("master: before %+v, after %+v", before, now)
	if now.descriptors > before.descriptors || now.threads > before.threads+64 {
		r.Errorf("master grew: before %+v, after %+v", before, now)
	}
}

func TestCloseOfOutputIsSeenWithTheMasterAlive(t *testing.T) {
	r := newRig(t, lab.Options{})
	began := time.Now()
	got := r.run(exec.Command("sh", "-c", binary+" "+r.target()+" 'echo one' 2>&1 | cat"))
	r.want(got, 0, "one\n", "")
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("took %v: the master holds its caller's stdout", d)
	}
}
