package ssmchannel

import (
	"testing"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// start is the beginning of time in the tests of pure state.
var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return start.Add(d) }

const ms = time.Millisecond

// sender is an outgoing state with the helpers of a script.
type sender struct {
	*testing.T
	outgoing
}

func newSender(t *testing.T) *sender {
	frames := &framePool{size: 2048}
	return &sender{T: t, outgoing: outgoing{frames: frames, window: newSendWindow(4<<20, 8192, 1144)}}
}

func (s *sender) pushN(n int) {
	for range n {
		f := s.frames.get()
		f.b = agentmsg.AppendMessage(f.b, &agentmsg.Message{
			Type: agentmsg.InputStreamData, CreatedMillis: 1, PayloadType: agentmsg.Output, Payload: make([]byte, 1024),
		})
		s.push(f)
	}
}

// sendAll transmits whatever is to be sent now and returns the numbers.
func (s *sender) sendAll(now time.Time) []int64 {
	numbers := []int64{}
	for {
		frame := s.transmit(now)
		if frame == nil {
			return numbers
		}
		var m agentmsg.Message
		if err := agentmsg.Parse(frame, &m); err != nil {
			s.Fatal(err)
		}
		numbers = append(numbers, m.Sequence)
	}
}

func (s *sender) expectSent(now time.Time, want ...int64) {
	s.Helper()
	got := s.sendAll(now)
	if len(got) != len(want) {
		s.Fatalf("sent %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			s.Fatalf("sent %v, want %v", got, want)
		}
	}
}

// elapse lets the timers run until the end and returns when each fired.
func (s *sender) elapse(from, until time.Time) (fired []time.Duration, numbers []int64) {
	for {
		next := s.nextTimeout()
		if next.IsZero() || next.After(until) {
			return fired, numbers
		}
		s.expire(next)
		if sent := s.sendAll(next); len(sent) > 0 {
			fired = append(fired, next.Sub(from))
			numbers = append(numbers, sent...)
		}
	}
}

func TestOutgoingNumbers(t *testing.T) {
	s := newSender(t)
	s.pushN(3)
	s.expectSent(at(0), 0, 1, 2)
	s.pushN(2)
	s.expectSent(at(0), 3, 4)
	if s.acked(at(ms), 5) || s.acked(at(ms), -1) {
		t.Error("acknowledged what was never sent")
	}
	s.pushN(1)
	if s.acked(at(ms), 5) {
		t.Error("acknowledged what was not sent yet")
	}
	for _, n := range []int64{1, 0, 2, 4, 3} {
		if !s.acked(at(ms), n) {
			t.Errorf("acknowledgement of %d was not taken", n)
		}
		if s.acked(at(ms), n) {
			t.Errorf("acknowledgement of %d was taken twice", n)
		}
	}
	if s.base != 5 || s.empty() {
		t.Errorf("base %d", s.base)
	}
}

func TestOutgoingLossByCount(t *testing.T) {
	s := newSender(t)
	s.pushN(6)
	s.expectSent(at(0), 0, 1, 2, 3, 4, 5)
	s.acked(at(100*ms), 1)
	s.acked(at(100*ms), 2)
	s.expectSent(at(100 * ms)) // two later ones are no evidence yet
	s.acked(at(100*ms), 3)
	s.expectSent(at(100*ms), 0)
	s.acked(at(100*ms), 4)
	s.acked(at(100*ms), 5)
	s.expectSent(at(100 * ms)) // sent again only now: nothing later has overtaken it
	s.acked(at(200*ms), 0)
	if !s.empty() {
		t.Error("not empty")
	}
}

func TestOutgoingLossByTime(t *testing.T) {
	s := newSender(t)
	s.pushN(2)
	s.expectSent(at(0), 0, 1)
	s.acked(at(100*ms), 1)
	fired, numbers := s.elapse(start, at(140*ms))
	if len(numbers) != 1 || numbers[0] != 0 || fired[0] != 113500*time.Microsecond {
		t.Errorf("sent %v at %v", numbers, fired)
	}
}

func TestOutgoingSilenceProbesOldestOnly(t *testing.T) {
	s := newSender(t)
	s.pushN(1)
	s.sendAll(at(0))
	s.acked(at(100*ms), 0)
	s.pushN(50)
	s.sendAll(at(time.Second))
	fired, numbers := s.elapse(at(time.Second), at(time.Minute))
	for _, n := range numbers {
		if n != 1 {
			t.Fatalf("sent %v", numbers)
		}
	}
	if len(fired) < 8 || len(fired) > 20 {
		t.Errorf("%d probes in a minute", len(fired))
	}
	if fired[0] != 300*ms || fired[1] != 900*ms { // RFC 6298: 100 ms + 4 × 50 ms, then doubled
		t.Errorf("probes at %v", fired)
	}
	if limit := s.window.limit; limit < initialWindow {
		t.Errorf("silence has shrunk the window to %d", limit)
	}
	for n := range int64(50) { // slow, not lost
		now := at(time.Minute + time.Duration(n)*10*ms)
		s.acked(now, n+1)
		s.expire(now)
		s.expectSent(now)
	}
}

func TestOutgoingOpeningProbesEarly(t *testing.T) {
	s := newSender(t)
	s.pushN(1)
	s.sendAll(at(0))
	s.acked(at(20*ms), 0)
	s.opening = true
	s.pushN(1)
	s.sendAll(at(100 * ms))
	fired, _ := s.elapse(at(100*ms), at(200*ms))
	if len(fired) == 0 || fired[0] > 35*ms {
		t.Errorf("probes at %v", fired)
	}
}

func TestOutgoingKarn(t *testing.T) {
	s := newSender(t)
	s.pushN(1)
	s.sendAll(at(0))
	s.elapse(start, at(300*ms)) // one probe
	s.acked(at(310*ms), 0)
	if s.rtt.sampled {
		t.Error("a repeated message was measured")
	}
	s.pushN(1)
	s.sendAll(at(time.Second))
	s.resendAll(at(2 * time.Second)) // the peer was away
	s.acked(at(3*time.Second), 1)
	if s.rtt.sampled {
		t.Error("an outage was measured")
	}
}

func TestOutgoingResendAll(t *testing.T) {
	s := newSender(t)
	s.pushN(6)
	s.sendAll(at(0))
	s.acked(at(ms), 2)
	s.pushN(2)
	s.relinked(at(time.Second))
	s.expectSent(at(time.Second), 0, 1, 3, 4, 5, 6, 7)
	s.acked(at(1020*ms), 3) // the earlier ones are on their way, not lost
	s.expectSent(at(1020 * ms))
	if s.rtt.latest != 20*ms {
		t.Errorf("round trip of %v", s.rtt.latest)
	}
}

// TestOutgoingFlightLost loses a whole flight without any later traffic: the
// answer to the probe alone shows it.
func TestOutgoingFlightLost(t *testing.T) {
	s := newSender(t)
	s.pushN(1)
	s.sendAll(at(0))
	s.acked(at(20*ms), 0)
	s.pushN(4)
	s.sendAll(at(time.Second))
	fired, _ := s.elapse(at(time.Second), at(1100*ms))
	s.acked(at(time.Second+fired[0]+20*ms), 1)
	_, numbers := s.elapse(at(time.Second), at(1300*ms))
	if len(numbers) < 3 || numbers[0] != 2 || numbers[1] != 3 || numbers[2] != 4 {
		t.Errorf("sent %v after the probe was acknowledged", numbers)
	}
}

func TestOutgoingPause(t *testing.T) {
	s := newSender(t)
	s.pushN(3)
	s.sendAll(at(0))
	s.pause(at(ms))
	s.pushN(3)
	s.expectSent(at(ms))
	fired, numbers := s.elapse(at(ms), at(20*time.Second))
	for _, n := range numbers {
		if n != 0 {
			t.Fatalf("sent %v while paused", numbers)
		}
	}
	if len(fired) < 4 || len(fired) > 8 {
		t.Errorf("probes at %v", fired)
	}
	s.unpause(at(20 * time.Second))
	s.expectSent(at(20*time.Second), 0, 1, 2, 3, 4, 5)
}

func TestOutgoingFramesAreReturned(t *testing.T) {
	s := newSender(t)
	s.pushN(100)
	s.sendAll(at(0))
	for n := range int64(100) {
		s.acked(at(ms), n)
	}
	if s.window.bytes != 0 || s.window.messages != 0 || s.flight.len() != 0 || s.lost.len() != 0 {
		t.Errorf("left: %+v, %d in flight, %d lost", s.window, s.flight.len(), s.lost.len())
	}
}

func TestWindow(t *testing.T) {
	fill := func(w *sendWindow) (n int) {
		for w.room(1144) {
			w.add(1144)
			n++
		}
		return n
	}
	t.Run("doubles per round trip up to its bound", func(t *testing.T) {
		w := newSendWindow(1<<20, 8192, 1144)
		fill(&w)
		for _, want := range []int{512 << 10, 1 << 20, 1 << 20} {
			for range w.messages { // one round trip
				w.acked(1144)
				fill(&w)
			}
			if w.limit < want-8192 || w.limit > want {
				t.Errorf("window of %d, want about %d", w.limit, want)
			}
		}
	})
	t.Run("bounds messages", func(t *testing.T) {
		w := newSendWindow(4<<20, 16, 1144)
		if n := fill(&w); n != 16 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("does not grow unused", func(t *testing.T) {
		w := newSendWindow(4<<20, 8192, 1144)
		for range 1000 {
			w.add(1144)
			w.acked(1144)
		}
		if w.limit != initialWindow {
			t.Errorf("window of %d", w.limit)
		}
	})
	t.Run("shrinks once per flight, never to nothing", func(t *testing.T) {
		w := newSendWindow(4<<20, 8192, 1144)
		w.lost(10, 100)
		once := w.limit
		w.lost(50, 120)
		if w.limit != once || once >= initialWindow {
			t.Errorf("%d, then %d", once, w.limit)
		}
		for i := range uint64(100) {
			w.lost(200+i*100, 250+i*100)
		}
		if w.limit != leastWindow {
			t.Errorf("window of %d", w.limit)
		}
	})
}

func TestRTTEstimator(t *testing.T) {
	tests := []struct {
		name    string
		samples []time.Duration
		smooth  time.Duration
		timeout time.Duration
	}{
		{"no sample", nil, 0, initialTimeout},
		{"first sample", []time.Duration{100 * ms}, 100 * ms, 300 * ms},
		{"second sample", []time.Duration{100 * ms, 180 * ms}, 110 * ms, 110*ms + 4*57500*time.Microsecond},
		{"instant", []time.Duration{0, 0, 0}, time.Microsecond, minTimeout},
		{"an hour", []time.Duration{time.Hour}, time.Hour, maxTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r rttEstimator
			for _, s := range tt.samples {
				r.sample(s)
			}
			if r.smoothed != tt.smooth || r.timeout() != tt.timeout {
				t.Errorf("%v and %v, want %v and %v", r.smoothed, r.timeout(), tt.smooth, tt.timeout)
			}
		})
	}
}

// TestOutgoingDoesNotRunAhead: one message that is never acknowledged holds up the rest at some distance,
// though the window would have room.
func TestOutgoingDoesNotRunAhead(t *testing.T) {
	s := newSender(t)
	s.window = newSendWindow(1<<20, 16, 1144)
	now := start
	for range 1000 {
		if !s.room(1144) {
			break
		}
		s.pushN(1)
		for s.transmit(now) != nil {
		}
		if n := s.next() - 1; n > 0 {
			s.outgoing.acked(now, n)
		}
		now = now.Add(ms)
	}
	if n := s.sent.len(); n != maxSpan*16 {
		t.Errorf("%d messages since the oldest, want %d", n, maxSpan*16)
	}
	s.outgoing.acked(now, 0)
	if !s.room(1144) {
		t.Error("no room when it is acknowledged")
	}
}
