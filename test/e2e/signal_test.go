package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// TestSignalsLeaveNoSession kills client or master at random moments of a call's life: while the
// master starts, while the session does, in mid-command, at the end.
func TestSignalsLeaveNoSession(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 8
	}
	r := newRig(t, lab.Options{RTT: 10 * time.Millisecond})
	signals := []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT}
	for i := range rounds {
		cmd := exec.Command(binary, "-o", "ControlPersist=1s", r.target(), "sleep 0.3")
		r.prepare(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(rand.N(1200 * time.Millisecond))
		pid := cmd.Process.Pid
		if i%2 == 1 { // the master, if there is one by now
			pid = masterBelow(r.runtime, pid)
		}
		syscall.Kill(pid, signals[i%len(signals)])
		cmd.Wait()
	}
	if c := r.settled(); c.LiveSessions != 0 || c.StartSession < int64(rounds)/8 {
		t.Errorf("%d of %d sessions left after %d signals", c.LiveSessions, c.StartSession, rounds)
	}
	r.Logf("%+v", r.lab.Counts())
}

// ^C that a user types to a call without a remote terminal interrupts its command, and what the command says of
// that is seen. OpenSSH leaves the command alone; so do we where the signal was sent by a program.
func TestInterrupt(t *testing.T) {
	eachWay(t, (*rig).allWays, func(w route) {
		for _, typed := range []bool{true, false} {
			dir := w.sharedDir()
			command := fmt.Sprintf("trap 'touch %[1]s/got; echo interrupted' INT; touch %[1]s/up; cat >/dev/null; touch %[1]s/over", dir)
			call := w.call([]string{"-T"}, command)
			if typed {
				term := w.terminalOf(call)
				w.await("the command", func() bool { return exists(dir + "/up") })
				io.WriteString(term, "\x03")
				term.wantStatus(255)
				<-term.done
				if !w.stock && !term.shows("interrupted") {
					t.Errorf("shows %q", term.shown())
				}
			} else {
				call.Stdin = w.endless()
				if err := w.prepare(call).Start(); err != nil {
					t.Fatal(err)
				}
				w.await("the command", func() bool { return exists(dir + "/up") })
				call.Process.Signal(syscall.SIGINT)
				call.Wait()
				if got := call.ProcessState.ExitCode(); got != 255 {
					t.Errorf("status %d, want 255", got)
				}
			}
			w.await("the command's end", func() bool { return exists(dir + "/over") })
			if got := exists(dir + "/got"); got != (typed && !w.stock) {
				t.Errorf("typed %v: interrupted %v", typed, got)
			}
		}
	})
}

// With SSMSendSignals a command hears of the signal that ends its call, and that hears what the command says of it.
func TestSendSignals(t *testing.T) {
	eachWay(t, (*rig).allWays, func(w route) {
		if w.stock {
			return // which has no such keyword
		}
		for name, signal := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT} {
			dir := w.sharedDir()
			command := fmt.Sprintf("trap 'echo %[1]s; exit' %[1]s; touch %[2]s/up; while :; do sleep 0.05; done", name, dir)
			call := w.call([]string{"-T", "-o", "SSMSendSignals=yes"}, command)
			var out bytes.Buffer
			call.Stdin, call.Stdout = w.endless(), &out
			if err := w.prepare(call).Start(); err != nil {
				t.Fatal(err)
			}
			w.await("the command", func() bool { return exists(dir + "/up") })
			call.Process.Signal(signal)
			call.Wait()
			if status := call.ProcessState.ExitCode(); status != 255 || out.String() != name+"\n" {
				t.Errorf("SIG%s: status %d, the command said %q", name, status, &out)
			}
		}
	})
}

// endless is an input that neither says anything nor ends, until the test does.
func (r *rig) endless() *os.File {
	r.Helper()
	in, feed, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { in.Close(); feed.Close() })
	return in
}
