package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// TestManyHostsAtAThrottledAPI has many calls begin at once, each to a node of its own, where the account
// may start three sessions a second: all are served, in about the least time.
func TestManyHostsAtAThrottledAPI(t *testing.T) {
	hosts := 200
	if testing.Short() {
		hosts = 12
	}
	const perSecond = 3
	r := newRig(t, lab.Options{Nodes: hosts, InProcessSSHD: true})
	program := binary
	if !testing.Short() {
		program = r.release() // two hundred processes under the race detector would keep the machine busy, not the API
	}
	r.lab.Faults().Set(lab.FaultSet{API: map[string]lab.APIFault{"StartSession": {Code: "ThrottlingException", PerSecond: perSecond}}})
	began := time.Now()
	var calls sync.WaitGroup
	for _, node := range r.lab.Targets() {
		calls.Go(func() {
			// Without a master, so that as many processes as hosts is all there is.
			got := r.run(exec.Command(program, "-o", "ControlPath=none", "-o", "ConnectTimeout=60", node, "echo served"))
			if got.status != 0 || got.stdout != "served\n" {
				t.Errorf("%s: %+v", node, got)
			}
		})
	}
	calls.Wait()
	took := time.Since(began)
	least := time.Duration(hosts-perSecond) * time.Second / perSecond
	c := r.lab.Counts()
	t.Logf("%d hosts in %v, %.2f of the least; %d calls refused", hosts, took, took.Seconds()/least.Seconds(), c.APIErrors)
	if c.StartSession != int64(hosts) || c.APIErrors == 0 {
		t.Errorf("%d sessions started, %d calls refused", c.StartSession, c.APIErrors)
	}
	if !testing.Short() && took > least*13/10 {
		t.Errorf("it took %v, more than 1.3 of the least, %v", took, least)
	}
}

// TestManyEndsAtAThrottledAPI has many sessions end at once where the account may end two a second, as after a play
// or with a network that comes back: all are ended, and their callers hear nothing of it.
func TestManyEndsAtAThrottledAPI(t *testing.T) {
	calls := 20
	if testing.Short() {
		calls = 8
	}
	const perSecond = 2
	r := newRig(t, lab.Options{InProcessSSHD: true})
	end := make(chan struct{})
	var running sync.WaitGroup
	for range calls {
		cmd := r.prepare(exec.Command(binary, "-S", "none", r.target(), "cat"))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			cmd.Stderr = new(bytes.Buffer)
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			<-end
			in.Close()
			if err := cmd.Wait(); err != nil || fmt.Sprint(cmd.Stderr) != "" {
				t.Errorf("%v: %s", err, cmd.Stderr)
			}
		})
	}
	r.await("all sessions", func() bool { return r.lab.Counts().DataChannels == int64(calls) })
	r.lab.Faults().Set(lab.FaultSet{API: map[string]lab.APIFault{"TerminateSession": {Code: "ThrottlingException", PerSecond: perSecond}}})
	close(end)
	running.Wait()
	c := r.lab.Counts()
	if left := r.records(); c.TerminateSession != int64(calls) || c.APIErrors == 0 || len(left) > 0 {
		t.Errorf("%d of %d sessions ended, %d calls refused, records %q are left", c.TerminateSession, calls, c.APIErrors, left)
	}
}

// TestNodeThatComesLater: a node that is still booting is waited for, ConnectTimeout or not; one that
// isn't there is reported as soon as there is no time left for another try.
func TestNodeThatComesLater(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.lab.Node(0).StopAgent()
	began := time.Now()
	got := r.ssh("-o", "ConnectTimeout=1", r.target(), "true")
	if took := time.Since(began); got.status != 255 || !strings.Contains(got.stderr, "TargetNotConnected") || took > 10*time.Second {
		t.Errorf("after %v: %+v", took, got)
	}
	refused := r.lab.Counts().APIErrors
	var call sync.WaitGroup
	call.Go(func() {
		got := r.ssh("-o", "ConnectTimeout=2", "-o", "SSMWait=1m", r.target(), "echo there")
		if got.status != 0 || got.stdout != "there\n" || !strings.Contains(got.stderr, "not connected to Systems Manager") {
			t.Errorf("%+v", got)
		}
	})
	r.await("the first try", func() bool { return r.lab.Counts().APIErrors > refused })
	r.lab.Node(0).StartAgent()
	call.Wait()
	r.wantSessions(1)
}
