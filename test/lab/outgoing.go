package lab

import (
	"context"
	"sync"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// Constants of the agent's sender (session/config/config.go).
const (
	resendTick     = 100 * time.Millisecond // ResendSleepInterval
	firstRTT       = 100 * time.Millisecond // DefaultRoundTripTime
	firstTimeout   = 200 * time.Millisecond // DefaultTransmissionTimeout
	timeoutCap     = time.Second            // MaxTransmissionTimeout
	clockGrain     = 10 * time.Millisecond  // ClockGranularity
	outgoingAtMost = 100_000                // OutgoingMessageBufferCapacity
)

// outgoing is the agent's sending side: numbers, the buffer of unacknowledged messages, and the
// estimate of the round trip. It repeats the oldest message only, and never gives up.
type outgoing struct {
	write func([]byte) // to the websocket; errors are the link's business

	sendMu sync.Mutex // one message is numbered and written at a time
	next   int64

	mu        sync.Mutex
	sent      []sentMessage // sent[i] has the number base+i
	base      int64
	waiting   int // unacknowledged entries of sent
	rtt       time.Duration
	variation time.Duration
	timeout   time.Duration
	paused    bool
	resumed   chan struct{} // closed when the pause ends; nil while not paused
}

type sentMessage struct {
	frame []byte // nil: acknowledged, or never stored
	last  time.Time
}

func newOutgoing(write func([]byte)) *outgoing {
	return &outgoing{write: write, rtt: firstRTT, timeout: firstTimeout}
}

// send numbers a payload and sends it. While the client is away it is only stored.
func (o *outgoing) send(payloadType agentmsg.PayloadType, payload []byte) {
	if len(payload) == 0 {
		return // as SendStreamDataMessage: an empty message cannot be serialized
	}
	o.sendMu.Lock()
	defer o.sendMu.Unlock()
	number := o.next
	o.next++
	var flags uint64
	if number == 0 {
		flags = agentmsg.FlagSyn
	}
	frame := encode(agentmsg.Message{Type: agentmsg.OutputStreamData, Sequence: number, Flags: flags,
		PayloadType: payloadType, Payload: payload})
	if !o.isPaused() {
		o.write(frame)
	}
	// Recorded after it was written, as the real agent does: an acknowledgement that arrives in
	// between is lost on it, and the message is repeated until it is acknowledged once more.
	o.record(number, frame, time.Now())
}

func (o *outgoing) record(number int64, frame []byte, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting >= outgoingAtMost {
		frame = nil // sent once, beyond repair
	} else {
		o.waiting++
	}
	if len(o.sent) == 0 {
		o.base = number
	}
	o.sent = append(o.sent, sentMessage{frame, now})
}

// acknowledge forgets a message and learns from how long it took.
func (o *outgoing) acknowledge(number int64, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := number - o.base
	if i < 0 || i >= int64(len(o.sent)) || o.sent[i].frame == nil {
		return
	}
	o.learnLocked(now.Sub(o.sent[i].last))
	o.sent[i].frame = nil
	o.waiting--
	for len(o.sent) > 0 && o.sent[0].frame == nil {
		o.sent = o.sent[1:]
		o.base++
	}
}

// learnLocked is the estimator of both official sides; o.mu is held.
func (o *outgoing) learnLocked(sample time.Duration) {
	o.variation = o.variation*3/4 + (o.rtt-sample).Abs()/4
	o.rtt = o.rtt*7/8 + sample/8
	o.timeout = min(timeoutCap, o.rtt+max(clockGrain, 4*o.variation))
}

// resend repeats the oldest unacknowledged message if its time is over.
func (o *outgoing) resend(now time.Time) {
	o.mu.Lock()
	if o.paused || o.waiting == 0 || now.Sub(o.sent[0].last) <= o.timeout {
		o.mu.Unlock()
		return
	}
	frame := o.sent[0].frame
	o.sent[0].last = now
	o.mu.Unlock()
	o.write(frame)
}

// pending returns how many messages are unacknowledged.
func (o *outgoing) pending() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting
}

// setPaused follows pause_publication and everything that ends it.
func (o *outgoing) setPaused(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case on && !o.paused:
		o.resumed = make(chan struct{})
	case !on && o.paused:
		close(o.resumed)
		o.resumed = nil
	}
	o.paused = on
}

func (o *outgoing) isPaused() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.paused
}

// awaitResumed returns when publication is not paused; false when ctx ended first.
func (o *outgoing) awaitResumed(ctx context.Context) bool {
	o.mu.Lock()
	resumed := o.resumed
	o.mu.Unlock()
	if resumed == nil {
		return ctx.Err() == nil
	}
	select {
	case <-resumed:
		return true
	case <-ctx.Done():
		return false
	}
}
