package ssmchannel

import (
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// outgoing is the sending side's state: numbers, what is unacknowledged, what to
// send next and when to look again. It does no I/O and starts no timer; time
// comes in as a parameter. Its owner's mutex guards it.
//
// A message is retransmitted when there is evidence of its loss: a later
// transmission was acknowledged, or the websocket was replaced. When all
// acknowledgements are silent only the oldest message is repeated, ever more
// slowly: the agent acknowledges after its local write, and a slow node is not a
// loss.
type outgoing struct {
	frames *framePool
	rtt    rttEstimator
	window sendWindow

	base     int64           // number of sent[0]
	unsent   int64           // the first number that was never sent
	sent     fifo[sentFrame] // by number, from base
	flight   fifo[flightRef] // by time of sending; stale entries are skipped
	lost     fifo[int64]     // numbers to send again
	pipe     int             // bytes on their way: sent, neither acknowledged nor lost
	ordinal  uint64          // of the latest transmission
	ackedOrd uint64          // the latest transmission known to have arrived
	maybeOrd uint64          // one that may have: see acked

	probe     bool      // the oldest message is due
	backoff   uint      // probes since the last acknowledgement
	moved     time.Time // when base last moved
	timerBase time.Time // from which the probe timeout counts
	paused    time.Time // since when the peer is away; zero: it is not

	// opening is set from HandshakeComplete until the first message after it is
	// acknowledged. The agent refuses data, without a word, until it has dialled the port
	// (agent: session/plugins/port/port.go, InputStreamMessageHandler): so the
	// oldest message is repeated early.
	opening bool

	retransmissions uint64
}

// sentFrame is one unacknowledged message.
type sentFrame struct {
	frame     *frame // nil once acknowledged
	firstSent time.Time
	lastSent  time.Time
	ordinal   uint64 // of its latest transmission
	sends     int
	lost      bool // in outgoing.lost
}

// underWay reports whether the message counts in outgoing.pipe.
func (s *sentFrame) underWay() bool { return s.ordinal > 0 && !s.lost }

// flightRef names a transmission; it is stale when the message was sent again.
type flightRef struct {
	number  int64
	ordinal uint64
}

const (
	// reorderThreshold is how many later transmissions must have arrived before
	// a message counts as lost without waiting (RFC 9002, section 6.1.1).
	reorderThreshold = 3
	// pausedProbe and maxPausedProbe space the probes while the peer is away.
	pausedProbe    = time.Second
	maxPausedProbe = 5 * time.Second
	maxBackoff     = 16
	// maxSpan is how many windows of messages may be between the oldest
	// unacknowledged one and the newest.
	maxSpan = 4
)

// next is the number that push will give.
func (o *outgoing) next() int64 { return o.base + int64(o.sent.len()) }

// empty reports whether everything is acknowledged.
func (o *outgoing) empty() bool { return o.sent.len() == 0 }

// push gives f the next number and queues it. f belongs to o from here on.
func (o *outgoing) push(f *frame) int64 {
	n := o.next()
	agentmsg.PutSequence(f.b, n)
	o.sent.push(sentFrame{frame: f})
	o.window.add(len(f.b))
	return n
}

// room reports whether the window takes another message of that many bytes. One
// message that is not acknowledged, though all after it are, must not let the rest
// run ahead for ever: their places are kept, and the agent keeps them all.
func (o *outgoing) room(bytes int) bool {
	return o.sent.len() < maxSpan*o.window.maxMessages && o.window.room(bytes)
}

// transmit returns the next message to write at this moment and records it as
// sent, or nil. The bytes stay o's.
func (o *outgoing) transmit(now time.Time) []byte {
	if o.probe {
		o.probe = false
		if !o.empty() {
			return o.record(now, o.base)
		}
	}
	if !o.paused.IsZero() {
		return nil
	}
	for o.lost.len() > 0 {
		n := *o.lost.at(0)
		s := o.find(n)
		if s != nil && s.lost && !o.fits(s) {
			return nil
		}
		o.lost.pop()
		if s != nil && s.lost {
			return o.record(now, n)
		}
	}
	if o.unsent < o.next() {
		return o.record(now, o.unsent)
	}
	return nil
}

// fits reports whether a lost message may be on its way again. It is within the
// window already, but the window has shrunk for it: repeats that all leave at once
// would be lost once more by whoever has dropped them (RFC 6675).
func (o *outgoing) fits(s *sentFrame) bool {
	return o.pipe == 0 || o.pipe+len(s.frame.b) <= o.window.limit
}

// pending reports whether it is worth to call transmit.
func (o *outgoing) pending() bool {
	switch {
	case o.probe && !o.empty():
		return true
	case !o.paused.IsZero():
		return false
	case o.lost.len() > 0:
		s := o.find(*o.lost.at(0))
		return s == nil || !s.lost || o.fits(s)
	}
	return o.unsent < o.next()
}

// record books a transmission of message n and returns its bytes.
func (o *outgoing) record(now time.Time, n int64) []byte {
	s := o.find(n)
	if n >= o.unsent {
		o.unsent = n + 1
		s.firstSent = now
	} else {
		o.retransmissions++
	}
	if o.flight.len() == 0 {
		o.timerBase = now
	}
	if !s.underWay() {
		o.pipe += len(s.frame.b)
	}
	o.ordinal++
	s.lastSent, s.ordinal, s.lost = now, o.ordinal, false
	s.sends++
	o.flight.push(flightRef{n, o.ordinal})
	return s.frame.b
}

// find returns the unacknowledged message n, or nil.
func (o *outgoing) find(n int64) *sentFrame {
	if n < o.base || n >= o.next() {
		return nil
	}
	s := o.sent.at(int(n - o.base))
	if s.frame == nil {
		return nil
	}
	return s
}

// acked takes the acknowledgement of message n and reports whether it was new.
func (o *outgoing) acked(now time.Time, n int64) bool {
	s := o.find(n)
	if s == nil || s.ordinal == 0 {
		return false
	}
	if s.sends == 1 && !s.lost { // Karn's rule; and no absence in the sample
		o.rtt.sample(now.Sub(s.lastSent))
		o.ackedOrd = max(o.ackedOrd, s.ordinal)
	} else if now.Sub(s.lastSent) >= o.rtt.least {
		// Which transmission was acknowledged? If the first, late, then the
		// acknowledgements of its successors follow at once. Only if they do
		// not, it was the last and its successors are lost: expire decides.
		o.maybeOrd = max(o.maybeOrd, s.ordinal)
	}
	if s.underWay() {
		o.pipe -= len(s.frame.b)
	}
	o.window.acked(len(s.frame.b))
	o.frames.put(s.frame)
	s.frame = nil
	for o.sent.len() > 0 && o.sent.at(0).frame == nil {
		o.sent.pop()
		o.base++
		o.opening, o.moved = false, now
	}
	o.backoff, o.timerBase, o.probe = 0, now, false
	o.detectLoss(now)
	return true
}

// detectLoss marks the messages that later transmissions have overtaken.
func (o *outgoing) detectLoss(now time.Time) {
	for o.flight.len() > 0 {
		ref := *o.flight.at(0)
		s := o.find(ref.number)
		if s == nil || s.ordinal != ref.ordinal || s.lost {
			o.flight.pop()
			continue
		}
		if ref.ordinal >= o.ackedOrd {
			return
		}
		overtaken := o.ackedOrd-ref.ordinal >= reorderThreshold
		if !overtaken && now.Before(s.lastSent.Add(o.rtt.reordering())) {
			return
		}
		o.flight.pop()
		s.lost = true
		o.pipe -= len(s.frame.b)
		o.lost.push(ref.number)
		o.window.lost(s.ordinal, o.ordinal)
	}
}

// nextTimeout is when expire has something to do; zero: never.
func (o *outgoing) nextTimeout() time.Time {
	if o.empty() {
		return time.Time{}
	}
	if !o.paused.IsZero() {
		return o.timerBase.Add(min(pausedProbe<<min(o.backoff, maxBackoff), maxPausedProbe))
	}
	if o.flight.len() == 0 {
		return time.Time{} // nothing on its way; what is due is pending
	}
	at := o.timerBase.Add(o.probeTimeout())
	if o.maybeOrd > o.ackedOrd {
		at = earlier(at, o.timerBase.Add(o.rtt.settling()))
	}
	// After detectLoss the front of the flight is the oldest live transmission.
	ref := o.flight.at(0)
	if s := o.find(ref.number); s != nil && ref.ordinal < o.ackedOrd {
		at = earlier(at, s.lastSent.Add(o.rtt.reordering()))
	}
	return at
}

func (o *outgoing) probeTimeout() time.Duration {
	d := o.rtt.timeout()
	if o.opening {
		d = o.rtt.early()
	}
	return min(d<<min(o.backoff, maxBackoff), maxTimeout)
}

// expire does what has become due: it declares losses and asks for a probe.
func (o *outgoing) expire(now time.Time) {
	if o.maybeOrd > o.ackedOrd && !now.Before(o.timerBase.Add(o.rtt.settling())) {
		o.ackedOrd = o.maybeOrd
	}
	o.detectLoss(now)
	at := o.nextTimeout()
	if at.IsZero() || now.Before(at) {
		return
	}
	o.probe = true
	o.backoff = min(o.backoff+1, maxBackoff)
	o.timerBase = now
}

// pause takes note that the peer is away: nothing is sent but a slow probe.
func (o *outgoing) pause(now time.Time) {
	if o.paused.IsZero() {
		o.paused, o.timerBase, o.backoff, o.probe = now, now, 0, false
	}
}

// unpause takes note that the peer is back: whatever was sent while it was away
// may be lost, so all of it goes out again.
func (o *outgoing) unpause(now time.Time) {
	if !o.paused.IsZero() {
		o.resendAll(now)
	}
}

// relinked takes note of a new websocket: whatever was on its way, either way,
// is lost. Acknowledgements can only be of what is sent from here on.
func (o *outgoing) relinked(now time.Time) {
	o.resendAll(now)
	for i := range o.sent.len() {
		o.sent.at(i).sends = 0
	}
}

// resendAll queues every unacknowledged message again, in order: the peer has
// returned, or the websocket has been replaced.
func (o *outgoing) resendAll(now time.Time) {
	o.paused = time.Time{}
	o.lost.clear()
	o.flight.clear()
	o.pipe = 0
	for i := range o.sent.len() {
		s := o.sent.at(i)
		if s.frame != nil && s.ordinal > 0 {
			s.lost = true
			o.lost.push(o.base + int64(i))
		}
	}
	if o.lost.len() > 0 {
		o.window.restart(o.ordinal)
	}
	o.probe, o.backoff, o.timerBase = false, 0, now
	o.ackedOrd = o.ordinal
}

// again queues message n once more, unless it is acknowledged or was not sent yet, and reports whether
// it did: the peer has shown that it hadn't been there.
func (o *outgoing) again(n int64) bool {
	s := o.find(n)
	if s == nil || !s.underWay() {
		return false
	}
	s.lost = true
	o.pipe -= len(s.frame.b)
	o.lost.push(n)
	return true
}

// begin forgets what a message before the data has taught that had to wait for the peer itself: the
// time it took is no round trip, and that it was lost no congestion.
func (o *outgoing) begin() {
	o.rtt.provisional = true
	o.window.reopen()
}

// oldest returns when the oldest unacknowledged message was first sent; zero
// when there is none or it was not sent.
func (o *outgoing) oldest() time.Time {
	if o.empty() {
		return time.Time{}
	}
	return o.sent.at(0).firstSent
}
