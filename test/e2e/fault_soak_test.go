package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// TestSoak cuts a websocket every few seconds while files are copied and a person types, all over one
// session. SSM_SSH_SOAK is its length, 20s by default.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	length := 20 * time.Second
	if text := os.Getenv("SSM_SSH_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	r := newRig(t, lab.Options{Link: lab.Link{RTT: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}})
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	until := time.Now().Add(length)
	var work sync.WaitGroup
	var cuts, copies int
	defer work.Wait() // the shell's failure ends the test at once
	work.Go(func() { cuts = r.soakCuts(until) })
	work.Go(func() { copies = r.soakCopies(until) })
	lines := r.soakShell(until)
	work.Wait()
	r.wantSessions(1)
	t.Logf("%v: %d cuts, %d files, %d lines; %v", length, cuts, copies, lines, r.lab.Counts())
}

// soakCuts loses one websocket after the other.
func (r *rig) soakCuts(until time.Time) (n int) {
	ways := []func(*rig){cutClients, cutAgents, byeClients, byeAgents}
	for ; time.Now().Before(until); n++ {
		<-time.After(2*time.Second + rand.N(2*time.Second))
		ways[n%len(ways)](r)
	}
	return n
}

// soakCopies copies files up and back and compares their sums.
func (r *rig) soakCopies(until time.Time) (n int) {
	var random [32]byte
	source := rand.NewChaCha8(random)
	data := make([]byte, 300<<10)
	for ; time.Now().Before(until) && !r.Failed(); n++ {
		source.Read(data)
		sum := fmt.Sprintf("%x", sha256.Sum256(data))
		if err := os.WriteFile(r.path("sent"), data, 0o600); err != nil {
			r.Error(err)
			return n
		}
		there := "/tmp/" + sum
		if got := r.sftp(nil, "put "+r.path("sent")+" "+there, "get "+there+" "+r.path("back"), "rm "+there); got.status != 0 {
			r.Errorf("sftp: %+v", got)
		}
		if back, err := os.ReadFile(r.path("back")); err != nil || fmt.Sprintf("%x", sha256.Sum256(back)) != sum {
			r.Errorf("copy %d differs, %v", n, err)
		}
	}
	return n
}

// soakShell types on a terminal and waits for each answer.
func (r *rig) soakShell(until time.Time) (n int) {
	term := r.onTerminal(r.target())
	for ; time.Now().Before(until); n++ {
		fmt.Fprintf(term, "echo $((%d * 7))-\n", 1000+n)
		term.expect(fmt.Sprintf("%d-", 7*(1000+n)))
		<-time.After(200 * time.Millisecond) // a person's pace
	}
	io.WriteString(term, "exit 5\n")
	term.cmd.Wait()
	if got := term.cmd.ProcessState.ExitCode(); got != 5 {
		r.Errorf("the shell ended with %d", got)
	}
	return n
}
