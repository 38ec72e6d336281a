package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// nodeFaults are a node or an agent that is away, deaf or gone while the service is there.
func nodeFaults() []fault {
	keepalive := []string{"-o", "SSMKeepAlive=2"}
	silent := line("connection lost: node does not answer: ")
	small := lab.Options{PortBuffer: 16 << 10} // so that the agent cannot put away all that ssh sends ahead
	agentGone := all(with(lab.FaultSet{RefuseAgent: true}), cutAgents)
	return []fault{
		{name: "agent stops and starts in mid-upload", full: true, at: inUpload, strike: func(r *rig) {
			r.lab.Node(0).StopAgent()
			<-time.After(500 * time.Millisecond)
			r.lab.Node(0).StartAgent()
		}},
		{name: "agent is stopped", strike: func(r *rig) { r.lab.Node(0).StopAgent() }, ends: line("start session: TargetNotConnected: .*agent"),
			heal: func(r *rig) { r.lab.Node(0).StartAgent() }},
		{name: "agent loses its way for ever in mid-upload", full: true, at: inUpload, strike: agentGone, ends: silent, within: silenceLimit},
		{name: "agent loses its way for ever in a silent command", full: true, args: keepalive, at: inCommand, strike: agentGone,
			ends: silent, within: silenceLimit},
		{name: "agent loses its way for some seconds in mid-download", full: true, at: inDownload,
			strike: all(with(lab.FaultSet{RefuseAgent: true}), cutAgents, forSome(1500*time.Millisecond, lab.FaultSet{RefuseAgent: true}))},

		{name: "node reads nothing for some seconds", opts: small, at: inUpload, bytes: 2 << 20, strike: frozen(scaled(3*time.Second, 8*time.Second)), seen: fewRepeats},
		{name: "node reads nothing for 30 s but takes what comes", full: true, at: inUpload, strike: frozen(30 * time.Second), seen: fewRepeats},
		{name: "node reads nothing any more", full: true, opts: small, at: inUpload, strike: freeze, ends: silent, within: silenceLimit, heal: thaw, seen: fewRepeats},
		{name: "node answers nothing any more, with ServerAliveInterval", full: true, args: []string{"-o", "ServerAliveInterval=2"}, at: inCommand,
			strike: freeze, ends: `^Timeout, server mi-\w+ not responding.\r\n$`, within: 12 * time.Second, heal: thaw},
		{name: "node stands still in a silent command", full: true, args: keepalive, at: inCommand, strike: frozen(20 * time.Second), silent: time.Second},

		{name: "reboot in a silent command", args: keepalive, at: inCommand, strike: reboot, ends: silent, within: silenceLimit},
		{name: "reboot in mid-upload", full: true, at: inUpload, strike: reboot, ends: silent, within: silenceLimit},
		{name: "reboot in mid-download", full: true, args: keepalive, at: inDownload, strike: reboot, ends: silent, within: silenceLimit},
		{name: "reboot while idle", full: true, at: idle, strike: reboot, ends: silent, within: silenceLimit},
		{name: "reboot while logging in", full: true, at: inLogin, args: []string{"-o", "ConnectTimeout=5"}, strike: reboot,
			opts: lab.Options{RTT: 50 * time.Millisecond, AgentLink: lab.Link{RTT: 50 * time.Millisecond}}, ends: "node does not answer|^Connection timed out during banner exchange", within: silenceLimit},
		{name: "sshd ends in a silent command", at: inCommand, strike: sshdStops, heal: sshdStarts,
			ends: closedByRemote},
		{name: "sshd ends while idle", full: true, at: idle, strike: all(sshdStops, sshdStarts), fresh: true},
	}
}

func reboot(r *rig) {
	if err := r.lab.Node(0).Reboot(r.Context(), 500*time.Millisecond); err != nil {
		r.Error(err)
	}
}

func sshdStops(r *rig) {
	if err := r.lab.Node(0).StopSSHD(); err != nil {
		r.Error(err)
	}
}

func sshdStarts(r *rig) {
	if err := r.lab.Node(0).StartSSHD(r.Context()); err != nil {
		r.Error(err)
	}
}

func freeze(r *rig) { r.lab.Node(0).Freeze(true) }
func thaw(r *rig)   { r.lab.Node(0).Freeze(false) }

func frozen(d time.Duration) func(*rig) {
	return func(r *rig) {
		freeze(r)
		<-time.After(d)
		thaw(r)
	}
}

// fewRepeats: a node that is slow to take data has not lost any. While it stands still it gets the
// oldest message again, ever more slowly; when it comes back haltingly, as on a busy machine, it may
// get what was under way once more: a window of 256 KiB at most.
func fewRepeats(c lab.Counts) bool { return c.RepeatsUp < 300 }

// TestNewClientWhileTheNetworkIsAway holds that a command that comes while the master's websocket is
// lost waits for its ConnectTimeout at most, and that the master lives on.
func TestNewClientWhileTheNetworkIsAway(t *testing.T) {
	r := newRig(t, lab.Options{})
	args := []string{"-o", "ConnectTimeout=2", r.target()}
	patient := []string{"-o", "ConnectTimeout=15", r.target()}
	r.want(r.ssh(append(patient, "true")...), 0, "", "")
	away := lab.FaultSet{RefuseAPI: true, RefuseGateway: true}
	cutClientsUnder(away)(r)
	began := time.Now()
	got := r.ssh(append(args, "echo too early")...)
	if took := time.Since(began); took > 5*time.Second || took < time.Second {
		t.Errorf("the client waited for %v, want 2s", took)
	}
	if got.status != 255 || got.stdout != "" || !matches(line("connect: the way to the node is lost.*"), got.stderr) {
		t.Errorf("%+v", got)
	}
	r.lab.Faults().Clear()
	r.want(r.ssh(append(patient, "echo again")...), 0, "again\n", "")
	r.wantSessions(1)

	// One that is lucky only waits.
	cutClientsUnder(away)(r)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	heal := context.AfterFunc(ctx, r.lab.Faults().Clear)
	defer heal()
	r.want(r.ssh(append(patient, "echo late")...), 0, "late\n", "")
	r.wantSessions(1)
}

// TestStockClientLearnsWhy has OpenSSH's own client ride the master when the connection is lost.
func TestStockClientLearnsWhy(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.open()
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	cmd := stock(r.socket(), "x", "touch "+r.path("started")+"; sleep 100")
	f := fault{at: inCommand, strike: expire}
	var got result
	f.strikeDuring(r, []phase{inCommand}, func() { got = r.run(cmd) })
	if got.status != 255 || !matches(line("connection lost: "), got.stderr) {
		t.Errorf("%+v", got)
	}
}

// TestEveryCommandLearnsWhy has a master lose its way for good while clients of all kinds wait: each of them
// ends with 255 and the reason.
func TestEveryCommandLearnsWhy(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.open()
	args := []string{"-o", "SSMResume=3"}
	r.want(fault{args: args}.call(r, "true"), 0, "", "")
	var waiting sync.WaitGroup
	for _, at := range []phase{inUpload, inDownload, inCommand, inCommand} {
		waiting.Go(func() {
			got := r.run(fault{args: args, at: at}.victim(r))
			if got.status != 255 || !matches(line("connection lost: .*not resumed within 3s"), got.stderr) {
				t.Errorf("%v: %+v", at, got)
			}
		})
	}
	before := r.lab.Counts()
	r.await("all to be under way", func() bool {
		return inUpload.reached(r, before) && inDownload.reached(r, before) && inCommand.reached(r, before)
	})
	began := time.Now()
	cutClientsUnder(lab.FaultSet{RefuseAPI: true, RefuseGateway: true})(r)
	waiting.Wait()
	if took := time.Since(began); took > 3*time.Second+2*endLimit {
		t.Errorf("it took %v", took)
	}
	r.lab.Faults().Clear()
	r.want(fault{args: args}.call(r, "echo back"), 0, "back\n", "")
}
