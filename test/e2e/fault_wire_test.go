package e2e

import (
	"fmt"
	"time"

	"ssm-ssh/test/lab"
)

// wireFaults are what befalls messages under way: each must be made good.
func wireFaults() []fault {
	var rows []fault
	for _, percent := range []int{1, 10} {
		p := float64(percent) / 100
		for _, f := range []struct {
			name   string
			faults lab.MessageFaults
		}{
			{"lost", lab.MessageFaults{Loss: p}},
			{"doubled", lab.MessageFaults{Dup: p}},
			{"disordered", lab.MessageFaults{Reorder: p, ReorderBy: 3}},
		} {
			data := lab.PathFaults{Data: f.faults}
			acks := lab.PathFaults{Ack: f.faults}
			rows = append(rows,
				fault{name: fmt.Sprintf("%d%% of data %s", percent, f.name), full: percent == 1,
					strike: with(lab.FaultSet{Up: data, Down: data}), seen: repeatedIf(f.faults.Loss >= 0.1)},
				fault{name: fmt.Sprintf("%d%% of acknowledgements %s", percent, f.name), full: percent == 1 || f.faults.Loss == 0,
					strike: with(lab.FaultSet{Up: acks, Down: acks}), seen: repeatedIf(f.faults.Loss >= 0.1)})
		}
	}
	worst := lab.MessageFaults{Loss: 0.05, Dup: 0.05, Reorder: 0.05, ReorderBy: 5}
	both := lab.PathFaults{Data: worst, Ack: worst}
	return append(rows,
		fault{name: "all of it at 60 ms", opts: lab.Options{RTT: 60 * time.Millisecond}, strike: with(lab.FaultSet{Up: both, Down: both}),
			seen: repeatedIf(true)},
		fault{name: "delay and jitter", opts: lab.Options{Link: lab.Link{
			RTT: scaled(100*time.Millisecond, 200*time.Millisecond), Jitter: scaled(50*time.Millisecond, 150*time.Millisecond)}}},
		fault{name: "little bandwidth", opts: lab.Options{Link: lab.Link{RTT: 40 * time.Millisecond, BytesPerSecond: 100 << 10}}},
		fault{name: "bandwidth that shrinks under a full window", full: true, opts: lab.Options{RTT: 20 * time.Millisecond}, at: inUpload,
			strike: func(r *rig) { r.lab.SetLink(lab.Link{RTT: 300 * time.Millisecond, BytesPerSecond: 100 << 10}) }})
}

func repeatedIf(must bool) func(lab.Counts) bool {
	return func(c lab.Counts) bool { return !must || c.RepeatsUp > 0 && c.RepeatsDown > 0 }
}

// frameFaults are what a gateway might send that no agent does.
func frameFaults() []fault {
	return []fault{
		{name: "messages of unknown type", full: true, strike: with(lab.FaultSet{UnknownType: 0.3})},
		{name: "corrupted digests", full: true, strike: with(lab.FaultSet{CorruptDigest: 0.3})},
		{name: "garbage", full: true, strike: with(lab.FaultSet{Garbage: 0.5})},
		{name: "oversized frames", strike: with(lab.FaultSet{Oversized: 0.05})},
		{name: "text frames", full: true, strike: with(lab.FaultSet{TextFrames: true})},
		{name: "fragmented frames", full: true, strike: with(lab.FaultSet{FragmentBytes: 100})},
		{name: "long header at the end", full: true, strike: with(lab.FaultSet{LongHeader: true})},
		{name: "garbage of all kinds in fragments of text", strike: with(lab.FaultSet{
			Garbage: 0.3, UnknownType: 0.3, CorruptDigest: 0.3, TextFrames: true, FragmentBytes: 300})},
	}
}
