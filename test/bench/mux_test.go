package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// call is what a mux client is asked to do.
type call struct {
	name string
	args func(controlPath, target string) []string
	goal map[time.Duration]string // of the ratio to stock ssh with its own master
}

var calls = []call{
	{"true", func(path, target string) []string { return []string{"-S", path, target, "true"} },
		map[time.Duration]string{0: "<= 1.0", far: "<= 0.6"}},
	{"-O check", func(path, target string) []string { return []string{"-S", path, "-O", "check", target} },
		map[time.Duration]string{0: "<= 1.0", far: "<= 1.0"}},
}

// far is the round trip time to another continent.
const far = 100 * time.Millisecond

// rtts are the link's round trip times: none, and far.
var rtts = []time.Duration{0, far}

// pause is left before each call, so that what the last one left under way in master and node, such as
// the end of a process or a channel for the next, isn't on its account.
const pause = 20 * time.Millisecond

// warmCalls is how often each client is called in one iteration: a call is short.
const warmCalls = 10

// client is one of those that are compared.
type client struct {
	name string
	call func() sample
	took []float64 // milliseconds
}

// BenchmarkMuxClient compares warm calls: clients of a living master.
func BenchmarkMuxClient(b *testing.B) {
	for _, c := range calls {
		b.Run(c.name, func(b *testing.B) {
			for _, rtt := range rtts {
				b.Run(inMS(rtt), func(b *testing.B) { benchmarkMuxClient(b, c, rtt) })
			}
		})
	}
}

func inMS(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

func benchmarkMuxClient(b *testing.B, c call, rtt time.Duration) {
	r := newRig(b)
	r.startStock()
	target := r.lab.Targets()[0]
	stock := func(path string) func() sample {
		return func() sample { return r.run(r.ssh, append([]string{"-F", "none"}, c.args(path, target)...)...) }
	}
	clients := []*client{
		{name: "ours", call: func() sample { return r.run(program, c.args(r.ours, target)...) }},
		{name: "ssh on its own master", call: stock(r.stock)},
		{name: "ssh on our master", call: stock(r.ours)},
	}
	r.lab.SetLink(lab.Link{RTT: rtt})
	for _, cl := range clients { // files into the cache
		r.must(cl.call())
	}
	b.ResetTimer()
	for b.Loop() {
		for range warmCalls {
			for _, i := range rand.Perm(len(clients)) {
				<-time.After(rtt + pause)
				clients[i].took = append(clients[i].took, milliseconds(r.must(clients[i].call()).took))
			}
		}
	}
	b.ReportMetric(0, "ns/op") // the three together, and the pauses: of no interest
	what := fmt.Sprintf("warm %s, %s", c.name, inMS(rtt))
	report(row{what, "ms", clients[0].took, clients[1].took, clients[1].name, c.goal[rtt]},
		row{what, "ms", clients[0].took, clients[2].took, clients[2].name, ""})
}

// ratiosOf divides call by call: neighbours in time share what the machine was doing.
func ratiosOf(ours, peer []float64) []float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / peer[i]
	}
	return ratios
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile returns the value below which that part of the values lies.
func quantile(values []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(part*float64(len(sorted)-1)+0.5)]
}
