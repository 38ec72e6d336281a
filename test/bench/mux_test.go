package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// call is what a mux client is asked to do.
type call struct {
	name string
	args func(controlPath, target string) []string
}

var calls = []call{
	{"true", func(path, target string) []string { return []string{"-S", path, target, "true"} }},
	{"check", func(path, target string) []string { return []string{"-S", path, "-O", "check", target} }},
}

// rtts are the link's round trip times: none, and another continent's.
var rtts = []time.Duration{0, 100 * time.Millisecond}

// pause is left before each call, so that what the last one left under way in master and node, such as
// the end of a process or a channel for the next, isn't on its account.
const pause = 20 * time.Millisecond

// client is one of those that are compared.
type client struct {
	name string
	call func() sample
	took []time.Duration
}

// BenchmarkMuxClient compares warm calls: clients of a living master.
func BenchmarkMuxClient(b *testing.B) {
	for _, c := range calls {
		b.Run(c.name, func(b *testing.B) {
			for _, rtt := range rtts {
				b.Run(fmt.Sprintf("%dms", rtt.Milliseconds()), func(b *testing.B) { benchmarkMuxClient(b, c, rtt) })
			}
		})
	}
}

func benchmarkMuxClient(b *testing.B, c call, rtt time.Duration) {
	r := newRig(b)
	r.startStock()
	target := r.lab.Targets()[0]
	var memory int64
	clients := []*client{
		{name: "ours", call: func() sample { return r.run(program, c.args(r.ours, target)...) }},
		{name: "same-master", call: func() sample { return r.run(r.ssh, append([]string{"-F", "none"}, c.args(r.ours, target)...)...) }},
		{name: "own-master", call: func() sample { return r.run(r.ssh, append([]string{"-F", "none"}, c.args(r.stock, target)...)...) }},
	}
	<-time.After(quiet)
	fresh := r.residentOf(r.masterPID())
	r.lab.SetLink(lab.Link{RTT: rtt})
	for _, cl := range clients { // files into the cache
		r.must(cl.call())
	}
	for b.Loop() {
		for _, i := range rand.Perm(len(clients)) {
			<-time.After(rtt + pause)
			cl := clients[i]
			s := r.must(cl.call())
			cl.took = append(cl.took, s.took)
			if i == 0 {
				memory = max(memory, s.memory)
			}
		}
	}
	b.Logf("%s, %s, %d processors", runtime.Version(), r.run(r.ssh, "-V").said, runtime.NumCPU())
	b.ReportMetric(0, "ns/op") // the three together, and the pauses: of no interest
	for _, cl := range clients {
		b.Logf("%-12s %s", cl.name, spread(milliseconds(cl.took), "ms"))
	}
	for _, peer := range clients[1:] {
		ratios := ratiosOf(clients[0].took, peer.took)
		b.Logf("ours to %-12s %s", peer.name, spread(ratios, ""))
		b.ReportMetric(quantile(ratios, 0.5), "x-"+peer.name)
	}
	<-time.After(quiet)
	b.Logf("client %s; idle master %s at first, %s now", mib(memory), mib(fresh), mib(r.residentOf(r.masterPID())))
	b.ReportMetric(float64(memory)/mebibyte, "MiB-client")
	b.ReportMetric(float64(fresh)/mebibyte, "MiB-master")
}

// ratiosOf divides call by call: neighbours in time share what the machine was doing.
func ratiosOf(ours, peer []time.Duration) []float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = float64(ours[i]) / float64(peer[i])
	}
	return ratios
}

func milliseconds(took []time.Duration) []float64 {
	ms := make([]float64, len(took))
	for i, d := range took {
		ms[i] = float64(d) / float64(time.Millisecond)
	}
	return ms
}

// spread tells the median with the quartiles around it.
func spread(values []float64, unit string) string {
	return fmt.Sprintf("%6.2f %s (%.2f to %.2f, n=%d)", quantile(values, 0.5), unit, quantile(values, 0.25), quantile(values, 0.75), len(values))
}

// quantile returns the value below which that part of the values lies.
func quantile(values []float64, part float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[int(part*float64(len(sorted)-1)+0.5)]
}
