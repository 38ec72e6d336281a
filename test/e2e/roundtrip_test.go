package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

const (
	// nearDelay and farDelay are the link's two round trip times. What a call takes more on the far
	// one, over their difference, is its number of round trips: all that takes the same time on both,
	// as starting processes does, cancels out. Both are above the 40 ms for which a Linux kernel may
	// hold an acknowledgement back, and they are so far apart that what a busy machine adds to the
	// quickest of a few calls is small beside one round trip.
	nearDelay = 60 * time.Millisecond
	farDelay  = 460 * time.Millisecond

	// flightTolerance is how far above its round number a count may be.
	flightTolerance = 0.3
	// flightTries is how often more may be measured when the machine was too busy.
	flightTries = 8
)

// flight is a warm call whose round trips are counted.
type flight struct {
	name  string
	args  []string
	stdin string // "": the null device
	run   string
	out   string
	want  float64 // through a master of ours; OpenSSH's own takes one more
}

var flights = []flight{
	{name: "exec", run: "echo $LC_FLIGHT", out: "one\n", want: 1},
	{name: "exec that reads stdin", stdin: "through\n", run: "cat", out: "through\n", want: 2},
	{name: "exec on a terminal", args: []string{"-tt"}, run: "tty | tr -d 0-9", out: "/dev/pts/\n", want: 1},
}

// way is a client and the master that it rides.
type way struct {
	name string
	call func(flight) *exec.Cmd
	more float64 // round trips than with a spare channel
}

// TestRoundTrips counts the round trips of warm calls over the lab's link, with OpenSSH as master and
// client over the same link beside ours.
func TestRoundTrips(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	ours := func(path string, args ...string) func(flight) *exec.Cmd {
		args = append(args, "-o", "SetEnv=LC_FLIGHT=one", "-S", path, r.target())
		r.want(r.ssh(append(args, "true")...), 0, "", "")
		return func(f flight) *exec.Cmd { return exec.Command(binary, slices.Concat(f.args, args, []string{f.run})...) }
	}
	stocks := func(path string) func(flight) *exec.Cmd {
		return func(f flight) *exec.Cmd { return stock(path, append(slices.Clone(f.args), "x", f.run)...) }
	}
	defer r.stockMasterOverSSM(r.path("stock"))()
	ways := []way{
		{"ssm-ssh", ours(r.path("cp")), 0},
		{"OpenSSH alone", stocks(r.path("stock")), 1}, // shows that the ruler sees one more
	}
	if !testing.Short() {
		ways = append(ways, way{"ssh on our master", stocks(r.path("other")), 0},
			way{"without spares", ours(r.path("none"), "-o", "SSMSpareChannels=0"), 1})
		ours(r.path("other"))
	}
	for _, w := range ways { // a connection's first terminal waits for its answer
		r.measure(w.call(flights[len(flights)-1]), flights[len(flights)-1])
	}

	times := make(flightTimes)
	for range flightTries {
		r.measureFlights(ways, times)
		table, good := times.table(ways)
		if good || t.Failed() {
			t.Log(table)
			return
		}
	}
	table, _ := times.table(ways)
	t.Errorf("out of range, %s", table)
}

// flightKey is a call in one way at one delay.
type flightKey struct {
	flight, way int
	delay       time.Duration
}

// flightTimes are how long the calls took, each time.
type flightTimes map[flightKey][]time.Duration

// measureFlights makes every call in every way at both delays. The ways have a session each and are
// measured at the same time: what they wait for is the link.
func (r *rig) measureFlights(ways []way, times flightTimes) {
	r.Helper()
	for _, delay := range []time.Duration{nearDelay, farDelay} {
		r.lab.SetLink(lab.Link{RTT: delay})
		took := make([][]time.Duration, len(ways))
		var wg sync.WaitGroup
		for j, w := range ways {
			wg.Go(func() {
				for _, f := range flights {
					<-time.After(delay + delay/2) // a spare channel is opened again
					took[j] = append(took[j], r.measure(w.call(f), f))
				}
			})
		}
		wg.Wait()
		for j := range ways {
			for i := range took[j] {
				k := flightKey{i, j, delay}
				times[k] = append(times[k], took[j][i])
			}
		}
	}
	r.lab.SetLink(lab.Link{})
}

// table counts the round trips, and tells whether all counts are what they should be.
func (times flightTimes) table(ways []way) (text string, good bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "round trips, from the quickest of %d measured at %v and at %v\n%-24s", len(times[flightKey{0, 0, nearDelay}]), nearDelay, farDelay, "")
	for _, w := range ways {
		fmt.Fprintf(&b, "%22s", w.name)
	}
	good = true
	for i, f := range flights {
		fmt.Fprintf(&b, "\n%-24s", f.name)
		for j, w := range ways {
			more := slices.Min(times[flightKey{i, j, farDelay}]) - slices.Min(times[flightKey{i, j, nearDelay}])
			count := float64(more) / float64(farDelay-nearDelay)
			// A busy machine may make a count too low, which is no worse; but the ruler must see the two ways
			// that take one more.
			good = good && count < f.want+w.more+flightTolerance && count > f.want+w.more-2*flightTolerance
			fmt.Fprintf(&b, "%15.2f (of %g)", count, f.want+w.more)
		}
	}
	return b.String(), good
}

// measure runs one call and returns how long it took.
func (r *rig) measure(cmd *exec.Cmd, f flight) time.Duration {
	r.Helper()
	if f.stdin != "" {
		cmd.Stdin = strings.NewReader(f.stdin)
	}
	began := time.Now()
	got := r.run(cmd)
	took := time.Since(began)
	if got.status != 0 || strings.ReplaceAll(got.stdout, "\r", "") != f.out {
		r.Errorf("%s: %+v", f.name, got)
	}
	return took
}

// stockMasterOverSSM starts OpenSSH's own master at path. Its way to the node is a session of ours
// that only carries its bytes (-W), so both have the same link below them.
func (r *rig) stockMasterOverSSM(path string) (stop func()) {
	r.Helper()
	master := r.prepare(exec.Command("ssh", "-F", "none", "-M", "-N", "-S", path, "-i", r.labEnv("SSM_SSH_LAB_KEY"),
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "SetEnv=LC_FLIGHT=one",
		"-o", "ProxyCommand="+binary+" -S none -W 127.0.0.1:"+r.lab.Node(0).SSHPort()+" "+r.target(),
		r.labEnv("SSM_SSH_LAB_USER")+"@node"))
	if err := master.Start(); err != nil {
		r.Fatal(err)
	}
	r.await("the stock master", func() bool { return exists(path) })
	return func() {
		r.run(stock(path, "-O", "exit", "x"))
		master.Wait()
	}
}
