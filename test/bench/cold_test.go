package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// coldDelays are the round trip times of cold starts. Between the last two the number of round trips
// is told by slope.
var coldDelays = []time.Duration{0, far, 2 * far}

// coldGoal is the goal at one of them, against ssh and the plugin.
const coldGoal = "<= 0.75"

// way is a program, or several, that runs a command on the node.
type way struct {
	name string
	run  func() sample
	took map[time.Duration][]float64 // milliseconds
}

// BenchmarkColdStart compares `true` on a node to which nobody has a connection: the program by a
// master that it makes and by a connection of its own, stock ssh with the plugin behind a program
// that does what the AWS CLI does, and with the AWS CLI itself.
func BenchmarkColdStart(b *testing.B) {
	r := newLab(b)
	r.usePlugin()
	target := r.lab.Targets()[0]
	ways := r.coldWays()
	for _, w := range ways { // files into the cache
		r.must(w.run())
	}
	b.ResetTimer()
	for b.Loop() {
		for _, rtt := range coldDelays {
			r.lab.SetLink(lab.Link{RTT: rtt})
			for _, i := range rand.Perm(len(ways)) {
				r.run(program, "-O", "exit", target) // there may be none
				r.lab.Settle(b.Context(), time.Second)
				<-time.After(rtt + pause)
				ways[i].took[rtt] = append(ways[i].took[rtt], milliseconds(r.must(ways[i].run()).took))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	reportCold(ways)
}

func (r *rig) coldWays() []*way {
	target := r.lab.Targets()[0]
	ways := []*way{
		{name: "ours", run: func() sample { return r.run(program, target, "true") }},
		{name: "ours without a master", run: func() sample { return r.run(program, "-S", "none", target, "true") }},
		{name: "ssh + plugin", run: func() sample { return r.coldPlugin("true") }},
	}
	if _, err := testenv.Find("aws"); err == nil {
		ways = append(ways, &way{name: "ssh + CLI + plugin", run: func() sample { return r.coldCLI("true") }})
	}
	for _, w := range ways {
		w.took = make(map[time.Duration][]float64)
	}
	return ways
}

func reportCold(ways []*way) {
	for _, peer := range ways[2:] {
		for _, rtt := range coldDelays {
			goal := ""
			if rtt == far && peer == ways[2] {
				goal = coldGoal
			}
			report(row{"cold true, " + inMS(rtt), "ms", ways[0].took[rtt], peer.took[rtt], peer.name, goal})
		}
	}
	for _, w := range ways {
		report(row{what: fmt.Sprintf("cold true, %s", w.name), unit: "round trips", ours: []float64{w.trips()}})
	}
}

// trips are the round trips of a cold start: all that doesn't depend on the delay cancels out.
func (w *way) trips() float64 {
	near, far := coldDelays[len(coldDelays)-2], coldDelays[len(coldDelays)-1]
	return (quantile(w.took[far], 0.5) - quantile(w.took[near], 0.5)) / milliseconds(far-near)
}
