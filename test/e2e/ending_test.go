package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// An ending is a way in which a process that owns a session comes to its end. Whatever it is, no session,
// worker, child of sshd's or record is left: at once where the process has a say in it, else when the next one starts.
type ending struct {
	name   string
	full   bool // through a master not in short mode; on a connection of its own always
	faults lab.FaultSet
	args   []string
	when   moment
	strike func(r *rig, pid int) // at that moment; pid owns the session
	run    func(r *rig, cmd *exec.Cmd) error
	killed bool // it is for the next start to end the session
	left   bool // it came to its end by itself all the same
	status int
	says   string // on stderr, as a regular expression; a master's own words reach nobody
}

// moment is when an ending strikes.
type moment int

const (
	byItself  moment = iota
	started          // StartSession was done, whoever knows of it
	inASilent        // command
)

func send(s syscall.Signal) func(*rig, int) {
	return func(r *rig, pid int) {
		if err := syscall.Kill(pid, s); err != nil {
			r.Errorf("sending %v to %d: %v", s, pid, err)
		}
	}
}

// endings is the table.
func endings() []ending {
	api := func(operation string, f lab.APIFault) lab.FaultSet {
		return lab.FaultSet{API: map[string]lab.APIFault{operation: f}}
	}
	return []ending{
		{name: "the command's end"},
		{name: "a forward that can't be opened", args: []string{"-o", "ExitOnForwardFailure=yes", "-L", "/nonexistent/socket:localhost:1"}, status: 255,
			says: "Could not request local forwarding.\r\n$"},
		{name: "authentication failed", full: true, args: []string{"-o", "PubkeyAuthentication=no", "-o", "BatchMode=yes"}, status: 255,
			says: `^tester@mi-\w+: Permission denied \(publickey\)\.\r\n$`},
		{name: "host key refused", full: true, args: []string{"-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"}, status: 255,
			says: `^No ED25519 host key is known for [^\n]*\nHost key verification failed\.\r\n$`},
		{name: "closed by the node", when: inASilent, strike: func(r *rig, _ int) {
			if err := r.lab.Node(0).StopSSHD(); err != nil {
				r.Error(err)
			}
		}, status: 255, says: closedByRemote},
		{name: "SIGINT", full: true, when: inASilent, strike: send(syscall.SIGINT), status: 255},
		{name: "SIGTERM", when: inASilent, strike: send(syscall.SIGTERM), status: 255},
		{name: "SIGHUP", full: true, when: inASilent, strike: send(syscall.SIGHUP), status: 255},
		{name: "SIGQUIT", full: true, when: inASilent, strike: send(syscall.SIGQUIT), status: 255},
		{name: "SIGPIPE, which ends nothing", full: true, when: inASilent, strike: func(r *rig, pid int) {
			send(syscall.SIGPIPE)(r, pid)
			if err := os.WriteFile(r.path("finish"), nil, 0o600); err != nil {
				r.Error(err)
			}
		}},
		{name: "nobody reads its output any more", full: true, run: readOneLine},
		{name: "its terminal is gone", full: true, when: inASilent, run: onTerminalThatGoes},
		{name: "SIGTERM during StartSession", full: true, faults: api("StartSession", lab.APIFault{LateMillis: 500}), when: started,
			strike: send(syscall.SIGTERM), status: 255},
		{name: "ConnectTimeout", full: true, args: []string{"-o", "ConnectTimeout=1"}, faults: lab.FaultSet{StallGateway: true}, status: 255,
			says: line("open data channel: ConnectTimeout is over")},
		{name: "no way to the gateway", full: true, args: []string{"-o", "ConnectTimeout=2"}, faults: lab.FaultSet{RefuseGateway: true}, status: 255,
			says: line("open data channel: ")},
		{name: "the gateway refuses the token", full: true, args: []string{"-o", "ConnectTimeout=2"}, faults: lab.FaultSet{RefuseToken: true}, status: 255,
			says: line("open data channel: ")},
		{name: "the session ends in the handshake", full: true, when: started, strike: func(r *rig, _ int) { r.lab.Faults().Terminate() }, status: 255,
			says: line("open data channel: |connection lost: ") + "|" + closedByRemote + "|^kex_exchange_identification: "},
		{name: "StartSession's answer is lost", full: true, faults: api("StartSession", lab.APIFault{LoseAnswer: true}), status: 255,
			says: line("start session: .*; the session that was started all the same is ended")},
		{name: "StartSession's answer is an error", full: true, faults: api("StartSession", lab.APIFault{Code: "InternalServerError", Done: true, Times: 2})},
		{name: "StartSession's answer is always an error", full: true, faults: api("StartSession", lab.APIFault{Code: "ServiceUnavailable", Done: true}), status: 255,
			says: line("start session: ServiceUnavailable; the session that was started all the same is ended")},
		{name: "TerminateSession throttled", full: true, faults: api("TerminateSession", lab.APIFault{Code: "ThrottlingException", Times: 3})},
		{name: "TerminateSession unavailable", full: true, faults: api("TerminateSession", lab.APIFault{Code: "ServiceUnavailable", Times: 1})},
		{name: "TerminateSession's answer is lost", full: true, faults: api("TerminateSession", lab.APIFault{LoseAnswer: true, Times: 1})},

		{name: "TerminateSession without an answer", full: true, faults: api("TerminateSession", lab.APIFault{Hang: true}), killed: true, left: true,
			says: line("terminate session: no answer in time; .*; SSM session lab-[0-9a-f]+ is left, for the next start to end")},
		{name: "TerminateSession refused", full: true, faults: api("TerminateSession", lab.APIFault{Code: "AccessDeniedException"}), killed: true, left: true,
			says: line("terminate session: AccessDeniedException: .*; the caller needs ssm:TerminateSession; SSM session lab-[0-9a-f]+ is left, for the next start to end")},
		{name: "killed during StartSession", faults: api("StartSession", lab.APIFault{LateMillis: 60_000}), when: started,
			strike: send(syscall.SIGKILL), killed: true, status: 255},
		{name: "killed before the first message", full: true, faults: lab.FaultSet{StallGateway: true}, when: started,
			strike: send(syscall.SIGKILL), killed: true, status: 255},
		{name: "killed in a command", when: inASilent, strike: send(syscall.SIGKILL), killed: true, status: 255},
		// As a panic of any goroutine and the end of memory do, SIGABRT ends a Go program on the spot.
		{name: "crashed in a command", full: true, when: inASilent, strike: send(syscall.SIGABRT), killed: true, status: 255},
	}
}

func TestEveryEndEndsTheSession(t *testing.T) {
	ways := map[string][]string{"own": {"-S", "none"}, "master": {"-o", "ControlPersist=1"}}
	var wg sync.WaitGroup
	slots := make(chan struct{}, rowsAtOnce)
	for way, args := range ways {
		for _, e := range endings() {
			if e.full && way == "master" && testing.Short() {
				continue
			}
			e.args = slices.Concat(args, e.args)
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				t.Run(way+"/"+e.name, func(t *testing.T) { e.test(t, way == "master") })
			})
		}
	}
	wg.Wait()
}

func (e ending) test(t *testing.T, shared bool) {
	r := newRig(t, lab.Options{})
	r.open()
	r.lab.Faults().Set(e.faults)
	run := "true"
	if e.when == inASilent {
		run = "touch " + r.path("started") + "; for i in $(seq 1000); do test -e " + r.path("finish") + " && exit; sleep 0.1; done"
	}
	cmd := r.prepare(exec.Command(binary, append(e.args, r.target(), run)...))
	var stderr bytes.Buffer
	if e.run == nil {
		cmd.Stderr = &stderr
	}
	err := e.meet(r, cmd, shared)
	if got := cmd.ProcessState.ExitCode(); e.run == nil && got != e.status && !(e.killed && !shared && got == -1) && !(e.killed && got == 2) {
		t.Errorf("status %d, want %d; %v", got, e.status, err)
	}
	r.lab.Faults().Clear()
	if e.killed {
		// One that was refused TerminateSession comes to its end by itself.
		r.await("the master's end", func() bool { return masterBelow(r.runtime, 0) == 0 && len(r.living()) == 0 })
		r.want(r.ssh("-S", "none", r.target(), "true"), 0, "", "")
	}
	r.await("the end of session, worker, sshd's child and record", func() bool {
		c := r.lab.Counts()
		return c.LiveSessions == 0 && c.LiveWorkers == 0 && r.lab.Node(0).SSHDChildren() == 0 && len(r.records()) == 0
	})
	if talks := !e.killed || e.left && !shared; talks && e.run == nil && (e.says == "" && stderr.Len() > 0 || !matches(e.says, stderr.String())) {
		t.Errorf("said %q, want %q", stderr.String(), e.says)
	}
	if !e.killed {
		r.wantOrder()
	}
	if c := r.lab.Counts(); c.StartSession == 0 || c.TerminateSession < c.StartSession {
		t.Errorf("%d sessions started, %d asked to end", c.StartSession, c.TerminateSession)
	}
}

// wantOrder looks at how the sessions have ended: TerminateSession was called for each of them; before that the agent
// had all input and the flag of the end, and no websocket was closed. Where the service was faster, there is no order
// to keep.
func (r *rig) wantOrder() {
	r.Helper()
	for _, steps := range r.lab.Steps() {
		asked := slices.Index(steps, lab.StepTerminate)
		before := func(step lab.Step) bool { return asked >= 0 && slices.Contains(steps[:asked], step) }
		inOrder := before(lab.StepFlag) && !before(lab.StepSocket) || before(lab.StepClosed)
		if asked < 0 || slices.Contains(steps, lab.StepSocket) && !inOrder {
			r.Errorf("the session ended by %v", steps)
		}
	}
}

// meet runs the command and has the ending strike it.
func (e ending) meet(r *rig, cmd *exec.Cmd, shared bool) error {
	if e.run != nil {
		return e.run(r, cmd)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if e.strike != nil {
		r.awaitMoment(e.when)
		pid := cmd.Process.Pid
		if shared {
			pid = masterBelow(r.runtime, 0)
		}
		e.strike(r, pid)
		defer func() {
			if e.killed {
				r.awaitDeath(pid)
			}
		}()
	}
	return cmd.Wait()
}

func (r *rig) awaitMoment(when moment) {
	r.Helper()
	switch when {
	case started:
		r.await("StartSession", func() bool { return r.lab.Counts().StartSession > 0 })
	case inASilent:
		r.await("the command", func() bool { return exists(r.path("started")) })
	}
}

// living lists the records whose owner lives.
func (r *rig) living() []journal.Item {
	items, err := journal.At(filepath.Join(r.path("state"), "ssm-ssh", "sessions")).List()
	if err != nil {
		r.Error(err)
	}
	return slices.DeleteFunc(items, func(it journal.Item) bool { return it.State != journal.Live })
}

// records lists the journal's files.
func (r *rig) records() []string {
	files, _ := filepath.Glob(filepath.Join(r.path("state"), "ssm-ssh", "sessions", "*"))
	return files
}

// readOneLine is `ssm-ssh node yes | head -1`.
func readOneLine(r *rig, cmd *exec.Cmd) error {
	cmd.Args[len(cmd.Args)-1] = "yes"
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout = in
	err = cmd.Start()
	in.Close()
	if err != nil {
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "y\n" {
		r.Errorf("read %q, %v", line, err)
	}
	out.Close()
	return cmd.Wait()
}

// onTerminalThatGoes hangs up a terminal.
func onTerminalThatGoes(r *rig, cmd *exec.Cmd) error {
	cmd.SysProcAttr = nil // pty.Start makes a session of its own
	// A command that doesn't read would go on by itself through a master, as it would through ssh's.
	cmd.Args[len(cmd.Args)-1] = "touch " + r.path("started") + "; cat"
	f, err := pty.Start(cmd)
	if err != nil {
		return err
	}
	r.awaitMoment(inASilent)
	return errors.Join(f.Close(), cmd.Wait())
}

// TestReaperLeavesTheLivingAlone: nothing but the sessions of the dead is touched.
func TestReaperLeavesTheLivingAlone(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{Nodes: 2})
	r.open()
	b := r.newBystander(r.lab.Targets()[1])
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	pid := r.masterPID(r.socket())
	send(syscall.SIGKILL)(r, pid)
	r.awaitDeath(pid)
	r.want(r.ssh("-S", "none", r.target(), "true"), 0, "", "")
	r.await("the end of the killed one's session", func() bool { return r.lab.Counts().LiveSessions == 1 && len(r.records()) == 1 })
	if left := r.sockets(); len(left) > 0 {
		t.Errorf("sockets %q are left", left)
	}
	b.check()
	b.end()
}

// A call through a living master does nothing for the dead: it has no time for that.
func TestWarmCallsDontReap(t *testing.T) {
	r := newRig(t, lab.Options{Nodes: 2})
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	cmd := r.prepare(exec.Command(binary, "-S", "none", r.lab.Targets()[1], "sleep 100"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("the second session", func() bool { return len(r.records()) == 2 && r.lab.Counts().DataChannels == 2 })
	cmd.Process.Kill()
	cmd.Wait()
	r.awaitDeath(cmd.Process.Pid)
	for range 5 {
		r.want(r.ssh(r.target(), "true"), 0, "", "")
	}
	if c := r.lab.Counts(); c.TerminateSession != 0 || c.LiveSessions != 2 || len(r.records()) != 2 {
		t.Errorf("a warm call has reaped: %+v", c)
	}
	if got := r.ssh("sessions", "gc"); got.status != 0 || !strings.HasSuffix(strings.SplitN(got.stdout, "\n", 2)[0], " terminated") {
		t.Errorf("gc: %+v", got)
	}
	r.await("the end of the killed one's session", func() bool { return r.lab.Counts().LiveSessions == 1 })
}

// Where nothing can be written, as without a home, there is a connection and a warning.
func TestWithoutAJournal(t *testing.T) {
	r := newRig(t, lab.Options{})
	cmd := exec.Command(binary, "-S", "none", r.target(), "echo here")
	cmd.Env = []string{"XDG_STATE_HOME=" + os.DevNull + "/nowhere"}
	if got := r.run(cmd); got.status != 0 || got.stdout != "here\n" || !matches(line("keep a journal of sessions: .*idle time-out"), got.stderr) {
		t.Errorf("got %+v", got)
	}
}
