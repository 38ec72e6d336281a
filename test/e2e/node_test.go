package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// load is what our clients cost the nodes. The agent and its workers are part of this process.
type load struct {
	sessions, workers int
	children          int // processes below the nodes' sshds
	connections       int // to the first node's sshd
	watches           int // inotify instances of agent and workers
	descriptors       int // of the nodes' sshds and all below them
	agent             int // descriptors of this process
}

// needProc skips a test where the processes of others can't be looked into.
func needProc(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("counts in /proc, which only Linux has")
	}
}

func (r *rig) load() load {
	r.Helper()
	c := r.lab.Counts()
	l := load{sessions: c.LiveSessions, workers: int(c.LiveWorkers), connections: r.sshdConnections(), agent: testenv.Descriptors(r)}
	for i := range r.lab.Targets() {
		pids := r.lab.Node(i).Processes()
		l.children += max(len(pids)-1, 0)
		for _, pid := range pids {
			fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // a child may have ended
			l.descriptors += len(fds)
		}
	}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "anon_inode:inotify" {
			l.watches++
		}
	}
	return l
}

// within says whether no part of a load is above another's.
func (l load) within(o load) bool {
	return l.sessions <= o.sessions && l.workers <= o.workers && l.children <= o.children && l.connections <= o.connections &&
		l.watches <= o.watches && l.descriptors <= o.descriptors && l.agent <= o.agent
}

// awaitNoLoad waits until no session is left and nothing of any.
func (r *rig) awaitNoLoad() {
	r.Helper()
	r.await("the end of all sessions", func() bool {
		l := r.load()
		return l.sessions+l.workers+l.children+l.connections+l.watches == 0
	})
}

// awaitLoad waits until the nodes bear no more than before.
func (r *rig) awaitLoad(when string, before load) {
	r.Helper()
	var now load
	defer func() { r.Logf("%s: %+v, wanted %+v", when, now, before) }()
	r.await("the nodes "+when, func() bool { now = r.load(); return now.within(before) })
}

// most is the highest that parts of a load have been, as a witness saw them.
type most struct{ workers, watches, connections, children int }

// witness looks at the load until it is told to stop, and then tells the most of it.
func (r *rig) witness() (stop func() most) {
	var m most
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-r.Context().Done(): // the test has failed
				return
			case <-tick.C:
			}
			l := r.load()
			m = most{max(m.workers, l.workers), max(m.watches, l.watches), max(m.connections, l.connections), max(m.children, l.children)}
		}
	})
	return func() most {
		close(done)
		watching.Wait()
		return m
	}
}

// TestNodeStaysFlat has one node serve all that a day brings over one session: a play, commands one by one and
// at once, files, forwards, lost websockets, clients that are killed. Workers, sshd's processes, inotify instances and
// descriptors are during all of it what one connection takes, and afterwards as before the first.
func TestNodeStaysFlat(t *testing.T) {
	needProc(t)
	testenv.Need(t, "ssh", "sftp", "ansible-playbook")
	rounds := int64(20)
	if testing.Short() {
		rounds = 2
	}
	r := newRig(t, lab.Options{Inotify: true})
	r.open()
	// The first call costs the lab what it then keeps.
	r.want(r.ssh("-S", "none", r.target(), "true"), 0, "", "")
	r.awaitNoLoad()
	before := r.load()
	path := r.path("cp")
	call := func(args ...string) *exec.Cmd {
		return exec.Command(binary, append([]string{"-S", path, "-o", "ControlPersist=yes", r.target()}, args...)...)
	}
	r.want(r.run(call("true")), 0, "", "")
	during := r.settledLoad()
	if during.sessions != 1 || during.workers != 1 || during.watches != 2 || during.connections != 1 || during.children == 0 {
		t.Errorf("one connection costs %+v", during)
	}
	stop := r.witness()
	r.wantRecap(r.playbook(r.bookOf(10), "ANSIBLE_SSH_CONTROL_PATH="+path))
	for i := range rounds {
		r.want(r.run(call("echo", strconv.FormatInt(i, 10))), 0, fmt.Sprintln(i), "")
		r.atOnce(9, func(_ int, run string) *exec.Cmd { return call(run) })
		soakSFTP(r, path, i)
		soakForward(r, path, i)
		r.killClient(call("cat"))
		[]func(*rig){cutClients, cutAgents, byeClients, byeAgents}[i%4](r)
		r.want(r.run(call("true")), 0, "", "")
	}
	r.awaitLoad("after the day's work", during)
	m := stop()
	t.Logf("at most %+v", m)
	if m.workers != 1 || m.watches != 2 || m.connections > 2 { // one of these is a forward's, which leads to sshd
		t.Errorf("at most %+v, want what one connection takes", m)
	}
	r.wantSessions(2)

	// What a dead master leaves, the next ends.
	pid := r.masterPID(path)
	send(syscall.SIGKILL)(r, pid)
	r.awaitDeath(pid)
	r.want(r.run(call("true")), 0, "", "")
	r.awaitLoad("after the death of a master", during)
	r.want(r.run(call("-O", "exit")), 0, "", "Exit request sent.\r\n")
	r.awaitLoad("after the end", before)
	r.wantSessions(3)
}

// settledLoad is the load once it no longer changes.
func (r *rig) settledLoad() (now load) {
	r.Helper()
	r.await("a steady load", func() bool {
		last := now
		<-time.After(300 * time.Millisecond)
		now = r.load()
		return now == last
	})
	return now
}

// killClient ends a call that reads its stdin by SIGKILL, once it has begun.
func (r *rig) killClient(cmd *exec.Cmd) {
	r.Helper()
	r.prepare(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		r.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	fmt.Fprintln(in, "begun")
	if _, err := out.Read(make([]byte, 8)); err != nil {
		r.Error(err)
	}
	cmd.Process.Kill()
	cmd.Wait() //nolint:errcheck // killed
}
