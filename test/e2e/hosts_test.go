package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

const (
	// hostBudget is what a master that nobody uses may have resident.
	hostBudget = 20 << 20
	// idleBudget is the processor time that such a master may take in a minute: a websocket ping every 15 s
	// (ssmchannel, defaultPingInterval) is all that it does, and each costs well below a millisecond.
	idleBudget = 20 * time.Millisecond
	// callersAtOnce is how many calls a fleet makes at a time, as many as Ansible's forks on a large controller.
	callersAtOnce = 20
	// restLimit is how long after its last call a master returns memory at the latest (cmd/ssm-ssh, restTime).
	restLimit = 7 * time.Second
)

// fleet is a rig whose every node has a master on this machine.
type fleet struct {
	*rig
	program string
	persist time.Duration // of the masters with odd numbers; the others stay until they are told to go
	masters []int         // their processes, by the nodes' numbers
}

// TestManyHosts has one machine hold a connection to each of 500 nodes, at rest after three commands on each:
// all of them are served, what it costs is told, and in the end nothing is left of any. In full length it is
// the program as it is released that is measured; the race detector multiplies memory.
func TestManyHosts(t *testing.T) {
	needProc(t)
	hosts, settle, idle := 500, restLimit, 5*time.Minute
	switch {
	case testing.Short():
		hosts, settle, idle = 12, 0, 2*time.Second
	case testenv.Race:
		hosts, idle = 200, 30*time.Second // it takes no more than 8128 goroutines, of which the lab has 21 for each
	}
	// Their time runs from their last call: all must have had theirs before the first of them ends.
	f := &fleet{rig: newRig(t, lab.Options{Nodes: hosts, InProcessSSHD: true}), program: binary, persist: idle + 2*time.Minute,
		masters: make([]int, hosts)}
	if !testing.Short() {
		f.program = f.release()
	}
	began := time.Now()
	f.each(func(i int) { f.want(f.call(i, "echo out; echo err >&2"), 0, "out\n", "err\n") })
	connected := time.Since(began)
	f.each(func(i int) {
		cmd := f.command(i, "cat; exit 7")
		cmd.Stdin = strings.NewReader("through\n")
		f.want(f.run(cmd), 7, "through\n", "")
	})
	f.each(func(i int) { f.masters[i] = f.check(i) })
	f.each(func(i int) { f.want(f.call(i, "true"), 0, "", "") })
	t.Logf("%d hosts connected in %v; 3 commands on each in %v", hosts, connected.Round(time.Second), time.Since(began).Round(time.Second))
	f.wantSessions(int64(hosts))

	<-time.After(settle)
	f.rest(idle)
	if c := f.lab.Counts(); c.LiveSessions != hosts || c.LiveWorkers != int64(hosts) || c.ResumeSession != 0 || c.APIErrors != 0 {
		t.Errorf("after the rest: %+v", c)
	}
	f.end()
	c := f.lab.Counts()
	if c.StartSession != int64(hosts) || c.TerminateSession < c.StartSession {
		t.Errorf("%d sessions started, %d asked to end, want %d", c.StartSession, c.TerminateSession, hosts)
	}
}

// release builds the program as it is released.
func (r *rig) release() string {
	r.Helper()
	program := r.path("ssm-ssh")
	build := exec.Command("make", "-s", "-C", "../..", "build", "CGO_ENABLED=0", "BIN="+program)
	if out, err := build.CombinedOutput(); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	return program
}

// each does something for every node, for some of them at a time.
func (f *fleet) each(do func(i int)) {
	f.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, callersAtOnce)
	for i := range f.masters {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	wg.Wait()
	if f.Failed() {
		f.FailNow()
	}
}

// command begins a command line for a node.
func (f *fleet) command(i int, args ...string) *exec.Cmd {
	persist := "yes"
	if i%2 == 1 {
		persist = fmt.Sprintf("%ds", int(f.persist.Seconds()))
	}
	return exec.Command(f.program, append([]string{"-o", "ControlPersist=" + persist, f.lab.Targets()[i]}, args...)...)
}

func (f *fleet) call(i int, args ...string) result { return f.run(f.command(i, args...)) }

// word sends a master one of ssh's control commands.
func (f *fleet) word(i int, word string) result {
	return f.run(exec.Command(f.program, "-O", word, f.lab.Targets()[i]))
}

// check returns a master's process.
func (f *fleet) check(i int) (pid int) {
	got := f.word(i, "check")
	if _, err := fmt.Sscanf(got.stderr, "Master running (pid=%d)", &pid); err != nil {
		f.Errorf("check: %+v", got)
	}
	return pid
}

// cost is what the masters have or have used, all together.
type cost struct {
	resident, share       int64 // bytes
	mostResident          int64 // of the largest
	descriptors, switches int
	processor             time.Duration
}

func (f *fleet) cost() (c cost) {
	f.Helper()
	for _, pid := range f.masters {
		resident, share := testenv.Memory(f, pid)
		c.resident, c.share, c.mostResident = c.resident+resident, c.share+share, max(c.mostResident, resident)
		c.descriptors += testenv.DescriptorsOf(f, pid)
		c.switches += testenv.Switches(f, pid)
		c.processor += testenv.ProcessorTime(f, pid)
	}
	return c
}

// rest leaves the fleet alone and tells what that costs.
func (f *fleet) rest(idle time.Duration) {
	f.Helper()
	before := f.cost()
	<-time.After(idle)
	after := f.cost()
	const mebibyte = 1 << 20
	hosts := len(f.masters)
	used := after.processor - before.processor
	f.Logf("%d masters at rest: resident %d MiB, their share of memory %d MiB, %.1f each, the largest resident %.1f; %d descriptors, %.1f each",
		hosts, after.resident/mebibyte, after.share/mebibyte, float64(after.share)/mebibyte/float64(hosts), float64(after.mostResident)/mebibyte,
		after.descriptors, float64(after.descriptors)/float64(hosts))
	minutes := idle.Minutes() * float64(hosts)
	f.Logf("in %v they use %v of processor time, %.2f ms a minute each, and switch %d times, %.1f a minute each",
		idle, used.Round(time.Millisecond), used.Seconds()*1000/minutes, after.switches-before.switches, float64(after.switches-before.switches)/minutes)
	if after.descriptors > before.descriptors {
		f.Errorf("%d descriptors have become %d", before.descriptors, after.descriptors)
	}
	if testing.Short() {
		return // it isn't the program as it is released
	}
	if after.mostResident > hostBudget {
		f.Errorf("a master has %d bytes resident, want %d", after.mostResident, hostBudget)
	}
	if time.Duration(float64(used)/minutes) > idleBudget {
		f.Errorf("a master uses more than %v in a minute", idleBudget)
	}
}

// end has half of the masters told to go and the other half's time run out, and looks for what they leave.
func (f *fleet) end() {
	f.Helper()
	f.each(func(i int) {
		if i%2 == 0 || testing.Short() {
			f.want(f.call(i, "echo still there"), 0, "still there\n", "")
			f.want(f.word(i, "exit"), 0, "", "Exit request sent.\r\n")
		}
	})
	limit := awaitLimit
	if !testing.Short() {
		limit += f.persist
	}
	f.awaitWithin(limit, "the end of masters, sessions, records and sockets", func() bool {
		c := f.lab.Counts()
		return c.LiveSessions == 0 && c.LiveWorkers == 0 && len(f.records()) == 0 && len(f.sockets()) == 0 && masterBelow(f.runtime, 0) == 0
	})
}
