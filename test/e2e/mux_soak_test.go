package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// request is one kind of what clients ask a master for.
type request struct {
	name   string
	weight int
	ask    func(r *rig, path string, n int64)
}

// ours is the program on a master's path; the host leads nowhere else.
func ours(path string, args ...string) *exec.Cmd {
	return exec.Command(binary, append([]string{"-F", "none", "-S", path, "-o", "ControlMaster=no"}, args...)...)
}

// either is one of the two clients.
func either(n int64, path string, args ...string) *exec.Cmd {
	if n%2 == 0 {
		return ours(path, args...)
	}
	return stock(path, args...)
}

var requests = []request{
	{"exec", 25, func(r *rig, path string, n int64) {
		got := r.run(either(n, path, "x", fmt.Sprintf("echo %d; echo e >&2; exit %d", n, n%250)))
		r.want(got, int(n%250), fmt.Sprintf("%d\n", n), "e\n")
	}},
	{"stdin", 15, func(r *rig, path string, n int64) {
		data := make([]byte, mathrand.N(100_000))
		rand.Read(data)
		cmd := either(n, path, "x", "cat")
		cmd.Stdin = bytes.NewReader(data)
		if got := r.run(cmd); got.status != 0 || got.stdout != string(data) {
			r.Errorf("cat of %d bytes: status %d, %d bytes, %q", len(data), got.status, len(got.stdout), got.stderr)
		}
	}},
	{"terminal", 10, func(r *rig, path string, n int64) {
		got := r.run(either(n, path, "-tt", "x", fmt.Sprintf("test -t 0 && exit %d", n%250)))
		if got.status != int(n%250) {
			r.Errorf("terminal: %+v", got)
		}
	}},
	{"check", 15, func(r *rig, path string, n int64) {
		if got := r.run(either(n, path, "-O", "check", "x")); got.status != 0 {
			r.Errorf("check: %+v", got)
		}
	}},
	{"sftp", 8, soakSFTP},
	{"forward", 10, soakForward},
	{"stdio forward", 5, func(r *rig, path string, n int64) {
		cmd := either(n, path, "-W", "127.0.0.1:"+r.lab.Node(0).SSHPort(), "x")
		cmd.Stdin = strings.NewReader("no version\r\n")
		if got := r.run(cmd); got.status != 0 || !strings.HasPrefix(got.stdout, "SSH-2.0-") {
			r.Errorf("stdio forward: %+v", got)
		}
	}},
	{"killed client", 12, func(r *rig, path string, n int64) {
		cmd := r.prepare(either(n, path, "x", "cat; exit 1"))
		in, err := cmd.StdinPipe() // so that the command goes on
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			r.Error(err)
			return
		}
		<-time.After(mathrand.N(60 * time.Millisecond)) // at any moment of its life
		cmd.Process.Kill()
		cmd.Wait()
		in.Close()
	}},
}

// soakSFTP carries a file there and back.
func soakSFTP(r *rig, path string, n int64) {
	data := make([]byte, mathrand.N(50_000))
	rand.Read(data)
	name := r.path(fmt.Sprintf("file%d", n))
	if err := os.WriteFile(name, data, 0o644); err != nil {
		r.Error(err)
		return
	}
	cmd := exec.Command("sftp", "-q", "-F", "none", "-o", "ControlPath="+path, "-b", "-", "x")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("put %[1]s %[1]s.there\nget %[1]s.there %[1]s.back\nrm %[1]s.there\n", name))
	if got := r.run(cmd); got.status != 0 {
		r.Errorf("sftp: %+v", got)
	}
	if back, err := os.ReadFile(name + ".back"); err != nil || !bytes.Equal(back, data) {
		r.Errorf("sftp: %d bytes of %d, %v", len(back), len(data), err)
	}
	os.Remove(name)
	os.Remove(name + ".back")
}

// soakForward opens a forward to the node's sshd, hears its first word through it, and cancels it.
func soakForward(r *rig, path string, n int64) {
	local := r.path(fmt.Sprintf("forward%d", n))
	spec := local + ":127.0.0.1:" + r.lab.Node(0).SSHPort()
	r.want(r.run(either(n, path, "-O", "forward", "-L", spec, "x")), 0, "", "")
	if c, err := net.Dial("unix", local); err != nil {
		r.Error(err)
	} else {
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
			r.Errorf("through a forward: %q, %v", line, err)
		}
		c.Close()
	}
	r.want(r.run(either(n, path, "-O", "cancel", "-L", spec, "x")), 0, "", "")
	os.Remove(local) // as ssh, a master leaves the name
}

// TestMuxSoak asks one master for all kinds of things at once, and wants it no bigger in the end.
func TestMuxSoak(t *testing.T) {
	testenv.Need(t, "ssh", "sftp")
	total, workers := int64(20_000), 6
	if testing.Short() {
		total = 300
	}
	r := newRig(t, lab.Options{})
	r.open()
	path := r.path("cp") // one that nobody named would end forwards with their clients
	r.want(r.ssh("-S", path, r.target(), "true"), 0, "", "")
	pid := r.masterPID(path)
	warm := total / 10
	r.soak(path, 0, warm, workers)
	before := r.settledFootprint(pid, footprint{})
	began := time.Now()
	r.soak(path, warm, total, workers)
	after := r.settledFootprint(pid, before)
	t.Logf("%d requests in %v; master before %+v, after %+v", total-warm, time.Since(began).Round(time.Second), before, after)
	if after.descriptors > before.descriptors || after.threads > before.threads+6 || after.residentKB > before.residentKB*3/2 {
		t.Errorf("the master has grown from %+v to %+v", before, after)
	}
	r.stopInMidWork(path, pid)
	r.wantSessions(1)
}

// stopInMidWork tells a master to stop while commands run: they end as if nothing had been said, and then
// the master does, and its session.
func (r *rig) stopInMidWork(path string, pid int) {
	r.Helper()
	var wg sync.WaitGroup
	var begun sync.WaitGroup
	stopped := make(chan struct{})
	for n := range int64(8) {
		cmd := r.prepare(either(n, path, "x", fmt.Sprintf("echo up; read line; exit %d", n)))
		in, err := cmd.StdinPipe()
		if err != nil {
			r.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			r.Fatal(err)
		}
		begun.Add(1)
		wg.Go(func() {
			_, err := io.ReadFull(out, make([]byte, 3))
			begun.Done()
			<-stopped
			io.WriteString(in, "go\n")
			cmd.Wait()
			if got := int64(cmd.ProcessState.ExitCode()); got != n || err != nil {
				r.Errorf("a command that ran at -O stop: status %d, %v, want %d", got, err, n)
			}
		})
	}
	begun.Wait()
	r.want(r.run(ours(path, "-O", "stop", "x")), 0, "", "Stop listening request sent.\r\n")
	r.await("the socket to go", func() bool { return !exists(path) })
	close(stopped)
	wg.Wait()
	r.await("the master's end", func() bool { return syscall.Kill(pid, 0) != nil })
}

// soak makes the requests from number first up to end.
func (r *rig) soak(path string, first, end int64, workers int) {
	var kinds []request
	for _, q := range requests {
		for range q.weight {
			kinds = append(kinds, q)
		}
	}
	var next atomic.Int64
	next.Store(first)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < end && !r.Failed(); n = next.Add(1) - 1 {
				kinds[mathrand.N(len(kinds))].ask(r, path, n)
			}
		})
	}
	wg.Wait()
}

// footprint is what a process holds.
type footprint struct{ descriptors, threads, residentKB int }

// settledFootprint waits for a master to be idle: as few descriptors as wanted, or for as long as the
// last commands of killed clients may take.
func (r *rig) settledFootprint(pid int, wanted footprint) footprint {
	r.Helper()
	var f footprint
	for until := time.Now().Add(3 * time.Second); ; <-time.After(50 * time.Millisecond) {
		f = footprintOf(pid)
		if done := wanted.descriptors > 0 && f.descriptors <= wanted.descriptors; done || time.Now().After(until) {
			return f
		}
	}
}

func footprintOf(pid int) (f footprint) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
	f.descriptors = len(fds)
	status, _ := os.ReadFile(filepath.Join(proc, "status"))
	for line := range strings.Lines(string(status)) {
		fmt.Sscanf(line, "Threads: %d", &f.threads)
		fmt.Sscanf(line, "VmRSS: %d", &f.residentKB)
	}
	return f
}
