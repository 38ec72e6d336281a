package lab_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// TestPluginSurvives: faults that the official client is known to survive must not break it here,
// or the fault is not what it says.
func TestPluginSurvives(t *testing.T) {
	both := func(f lab.MessageFaults) lab.FaultSet {
		return lab.FaultSet{Up: lab.PathFaults{Data: f}, Down: lab.PathFaults{Data: f}}
	}
	tests := []struct {
		name   string
		faults lab.FaultSet
		seen   func(lab.Counts) bool // that the fault has struck
	}{
		{"lost data", both(lab.MessageFaults{Loss: 0.02}), func(c lab.Counts) bool { return c.RepeatsUp > 0 && c.RepeatsDown > 0 }},
		{"duplicates", both(lab.MessageFaults{Dup: 0.2}), nil},
		{"disorder", both(lab.MessageFaults{Reorder: 0.1, ReorderBy: 3}), nil},
		{"lost acknowledgements of the agent", lab.FaultSet{Down: lab.PathFaults{Ack: lab.MessageFaults{Loss: 0.05}}},
			func(c lab.Counts) bool { return c.RepeatsUp > 0 }},
		{"fragments", lab.FaultSet{FragmentBytes: 100}, nil},
		{"text frames", lab.FaultSet{TextFrames: true}, nil},
		{"spoiled copies", lab.FaultSet{CorruptDigest: 0.2}, nil},
		{"unknown types", lab.FaultSet{UnknownType: 0.2}, nil},
		{"long header", lab.FaultSet{LongHeader: true}, nil},
	}
	data := make([]byte, 100<<10)
	rand.Read(data)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startStock(t, lab.Options{Faults: tt.faults})
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			out, err := s.ssh(ctx, data, "cat")
			if err != nil || !bytes.Equal(out, data) {
				t.Errorf("%d bytes, %v", len(out), err)
			}
			if c := s.lab.Counts(); tt.seen != nil && !tt.seen(c) {
				t.Errorf("it did not happen: %+v", c)
			}
		})
	}
}
