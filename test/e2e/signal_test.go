package e2e

import (
	"math/rand/v2"
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
