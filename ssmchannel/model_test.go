package ssmchannel

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// world is a discrete simulation of one outgoing and one incoming state with a
// network between them that does anything. No goroutine and no clock is involved.
type world struct {
	*testing.T
	random *rand.Rand
	now    time.Time
	events eventHeap
	out    outgoing
	in     incoming
	epoch  int // of the link: what is on its way dies with it
	calm   bool
	pushed int64
	got    int64 // delivered in order
}

type event struct {
	at    time.Time
	order int
	epoch int
	ack   bool
	n     int64
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].order < h[j].order
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func (w *world) chance(p float64) bool { return !w.calm && w.random.Float64() < p }

// travel puts a message on the wire, or two, or none.
func (w *world) travel(ack bool, n int64) {
	copies := 1
	if w.chance(0.05) {
		copies = 0
	} else if w.chance(0.05) {
		copies = 2
	}
	for range copies {
		delay := 20 * ms
		if w.chance(0.1) {
			delay += time.Duration(w.random.Int64N(int64(30 * ms)))
		}
		w.pushed++ // any growing number keeps the order of equal times
		heap.Push(&w.events, event{w.now.Add(delay), int(w.pushed), w.epoch, ack, n})
	}
}

func (w *world) transmit() {
	for {
		frame := w.out.transmit(w.now)
		if frame == nil {
			return
		}
		var m agentmsg.Message
		if err := agentmsg.Parse(frame, &m); err != nil {
			w.Fatal(err)
		}
		w.travel(false, m.Sequence)
	}
}

// step does one thing: a write, a misfortune, an arrival or a timeout.
func (w *world) step() {
	switch {
	case !w.calm && w.out.room(200) && w.random.IntN(3) == 0:
		f := w.out.frames.get()
		f.b = agentmsg.AppendMessage(f.b, &agentmsg.Message{
			Type: agentmsg.InputStreamData, CreatedMillis: 1, PayloadType: agentmsg.Output, Payload: []byte("payload"),
		})
		w.out.push(f)
	case w.chance(0.0005):
		w.epoch++
		w.out.relinked(w.now)
	case w.chance(0.0005):
		w.out.pause(w.now)
	case w.chance(0.01):
		w.out.unpause(w.now)
	default:
		w.advance()
	}
	w.transmit()
	w.check()
}

func (w *world) advance() {
	timeout := w.out.nextTimeout()
	if w.events.Len() == 0 {
		if timeout.IsZero() {
			return
		}
		w.now = later(w.now, timeout)
		w.out.expire(w.now)
		return
	}
	if next := w.events[0].at; timeout.IsZero() || next.Before(timeout) {
		e := heap.Pop(&w.events).(event)
		w.now = later(w.now, e.at)
		w.arrive(e)
		return
	}
	w.now = later(w.now, timeout)
	w.out.expire(w.now)
}

func (w *world) arrive(e event) {
	if e.epoch != w.epoch {
		return
	}
	if e.ack {
		w.out.unpause(w.now)
		w.out.acked(w.now, e.n)
		return
	}
	switch w.in.received(e.n, agentmsg.Output, []byte("payload")) {
	case refused:
		return
	case due:
		if e.n != w.got {
			w.Fatalf("delivered %d, want %d", e.n, w.got)
		}
		w.got++
		for {
			if _, ok := w.in.pop(); !ok {
				break
			}
			w.got++
		}
	}
	w.travel(true, e.n)
}

// check holds the state to what must always be true.
func (w *world) check() {
	if w.out.base > w.in.next {
		w.Fatalf("%d acknowledged, only %d delivered", w.out.base, w.in.next)
	}
	if w.out.window.messages != 0 && w.out.empty() || w.out.window.bytes < 0 {
		w.Fatalf("window %+v with %d unacknowledged", w.out.window, w.out.sent.len())
	}
	pipe := 0
	for i := range w.out.sent.len() {
		if s := w.out.sent.at(i); s.frame != nil && s.underWay() {
			pipe += len(s.frame.b)
		}
	}
	if w.out.pipe != pipe {
		w.Fatalf("%d bytes on their way, %d are counted", pipe, w.out.pipe)
	}
	if !w.out.empty() && !w.out.pending() && w.out.nextTimeout().IsZero() {
		w.Fatal("something is unacknowledged and nothing will ever happen")
	}
	if n := w.out.flight.len(); n > 8192 {
		w.Fatalf("%d transmissions remembered", n)
	}
}

// TestModel runs the two states through random misfortune: what is delivered is
// exactly what was sent, in order, and all of it arrives once the network calms
// down.
func TestModel(t *testing.T) {
	steps := 600_000
	if testing.Short() {
		steps = 30_000
	}
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &world{
				T: t, random: rand.New(rand.NewPCG(seed, 7)), now: start,
				in:  newIncoming(1 << 20),
				out: outgoing{frames: &framePool{size: 256}, window: newSendWindow(64<<10, 400, 200)},
			}
			for range steps {
				w.step()
			}
			w.calm = true
			w.out.unpause(w.now)
			for i := 0; !w.out.empty(); i++ {
				if i > steps {
					t.Fatalf("%d messages never arrive", w.out.sent.len())
				}
				w.step()
			}
			if w.got != w.out.base || w.got < int64(steps/50) {
				t.Errorf("%d delivered, %d sent", w.got, w.out.base)
			}
			t.Logf("%d messages, %d repeats, %d duplicates, %v", w.got, w.out.retransmissions, w.in.duplicates, w.now.Sub(start))
		})
	}
}
