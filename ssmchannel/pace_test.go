package ssmchannel

import (
	"bytes"
	"io"
	"testing"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// TestPace uploads over paths of all kinds: the window neither stalls on a long one nor floods a gateway that
// throttles.
func TestPace(t *testing.T) {
	const megabyte = 1 << 20
	tests := []struct {
		name   string
		path   faults
		bytes  int
		within time.Duration
		again  float64 // the most of the messages that may be sent again
	}{
		// From 256 KiB the window doubles to 4 MiB in four round trips; the rest goes at that.
		{"200 ms, unlimited", faults{delay: 100 * ms}, 32 * megabyte, 4 * time.Second, 0.001},
		{"600 ms, unlimited", faults{delay: 300 * ms}, 32 * megabyte, 10 * time.Second, 0.001},
		{"200 ms, 1 MB/s", faults{delay: 100 * ms, rate: 1_000_000}, 8 * megabyte, 11 * time.Second, 0.001},
		{"20 ms, 100 kB/s, long queue", faults{delay: 10 * ms, rate: 100_000}, 2 * megabyte, 26 * time.Second, 0.001},
		{"20 ms, 1 MB/s, drops beyond 200 kB", faults{delay: 10 * ms, rate: 1_000_000, queue: 200_000}, 8 * megabyte, 14 * time.Second, 0.05},
		{"100 ms, 200 kB/s, drops beyond 50 kB", faults{delay: 50 * ms, rate: 200_000, queue: 50_000}, 2 * megabyte, 15 * time.Second, 0.3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inScene(t, peerOptions{}, tt.path, Config{}, func(s *scene) {
				data := randomBytes(tt.bytes, 1)
				started := time.Now()
				s.write(data)
				for s.conn.Stats().Unacked > 0 && time.Since(started) < time.Hour {
					time.Sleep(10 * ms)
				}
				took := time.Since(started)
				st := s.conn.Stats()
				again := float64(st.Retransmissions) / float64(st.MessagesSent-st.Retransmissions)
				t.Logf("%v, %.2f MB/s, %.2f %% again, window %d KiB", took.Round(ms), float64(tt.bytes)/took.Seconds()/1e6, 100*again, st.WindowBytes>>10)
				if took > tt.within || again > tt.again {
					t.Errorf("want %v and %.1f %%", tt.within, 100*tt.again)
				}
				if !bytes.Equal(s.peer.received(), data) {
					t.Error("the peer has other bytes")
				}
			})
		})
	}
}

// TestAcknowledgements: what is taken in is acknowledged at once, whether it is read or not; so is what is
// known already, and what came before its turn; what there is no room for is not.
func TestAcknowledgements(t *testing.T) {
	c := newConn(Session{ID: "s-1"}, Config{IncomingBytes: minIncomingBytes}.populate(), nil)
	defer c.cancel(io.EOF)
	receive := func(number int64, payload int) (acknowledged []int64) {
		t.Helper()
		c.acks = c.acks[:0]
		frame := agentmsg.AppendMessage(nil, &agentmsg.Message{
			Type: agentmsg.OutputStreamData, CreatedMillis: 1, Sequence: number, PayloadType: agentmsg.Output, Payload: make([]byte, payload),
		})
		if err := c.receive(frame); err != nil {
			t.Fatal(err)
		}
		for _, a := range c.acks {
			acknowledged = append(acknowledged, a.number)
		}
		return acknowledged
	}
	steps := []struct {
		number  int64
		payload int
		want    bool
	}{
		{0, 1000, true}, {0, 1000, true}, {0, 1000, true},
		{2, 1000, true}, {2, 1000, true},
		{3, minIncomingBytes, false}, // ahead, and too much
		{1, 1000, true}, {2, 1000, true},
		{3, hardLimit * minIncomingBytes, false}, // its turn, and too much for any reader
		{3, 1000, true},
	}
	for i, step := range steps {
		got := receive(step.number, step.payload)
		if step.want != (len(got) == 1 && got[0] == step.number) || !step.want && len(got) != 0 {
			t.Errorf("step %d: %v acknowledged", i, got)
		}
	}
	if c.inbox.n != 4000 || c.in.next != 4 {
		t.Errorf("%d bytes to be read, %d messages delivered", c.inbox.n, c.in.next)
	}
}
