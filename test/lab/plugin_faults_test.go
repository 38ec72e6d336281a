package lab_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// TestPluginSurvives: faults that the official client is known to survive must not break it here,
// or the fault is not what it says. They begin once the command has answered: a handshake response
// that arrives late lets the agent throw away what came ahead of it (datachannel.go:
// processStreamDataMessage), which no client of AWS's survives. And they come with some distance:
// where an acknowledgement overtakes the agent's note of what it has sent, the agent repeats that
// message for ever, since the plugin acknowledges an old number never again (streaming.go:
// HandleOutputMessage), and mends no later loss.
func TestPluginSurvives(t *testing.T) {
	both := func(f lab.MessageFaults) lab.FaultSet {
		return lab.FaultSet{Up: lab.PathFaults{Data: f}, Down: lab.PathFaults{Data: f}}
	}
	tests := []struct {
		name   string
		faults lab.FaultSet
		seen   func(lab.Counts) bool // that the fault has struck
	}{
		{"lost data", both(lab.MessageFaults{Loss: 0.1}), func(c lab.Counts) bool { return c.RepeatsUp > 0 && c.RepeatsDown > 0 }},
		{"duplicates", both(lab.MessageFaults{Dup: 0.2}), nil},
		{"disorder", both(lab.MessageFaults{Reorder: 0.1, ReorderBy: 3}), nil},
		{"lost acknowledgements of the agent", lab.FaultSet{Down: lab.PathFaults{Ack: lab.MessageFaults{Loss: 0.1}}},
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
			s := startStock(t, lab.Options{RTT: 50 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			got, err := s.echo(ctx, data, func() { s.lab.Faults().Set(tt.faults) })
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if c := s.lab.Counts(); tt.seen != nil && !tt.seen(c) {
				t.Errorf("it did not happen: %+v", c)
			}
		})
	}
}

// echo sends data through a command on the first node and returns what comes back. It calls begin
// when the command runs, before the first byte of data.
func (s *stock) echo(ctx context.Context, data []byte, begin func()) ([]byte, error) {
	const ready = "ready\n"
	cmd := s.command(ctx, "printf '"+`ready\n`+"'; cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	greeting := make([]byte, len(ready))
	if _, err := io.ReadFull(stdout, greeting); err != nil || string(greeting) != ready {
		return nil, errors.Join(fmt.Errorf("greeting %q: %v: %s", greeting, err, &errs), cmd.Wait())
	}
	begin()
	go func() {
		stdin.Write(data) // an error shows in what comes back
		stdin.Close()
	}()
	got, err := io.ReadAll(stdout)
	if waited := cmd.Wait(); waited != nil {
		err = fmt.Errorf("%w: %s", waited, &errs)
	}
	return got, err
}
