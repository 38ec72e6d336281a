package sshproxy

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// probeInterval is how often the head of the queue tries again though nothing of ours has ended:
	// a command that outlives its channel counts at sshd until it dies, and then makes room unseen.
	probeInterval = time.Second

	// settleTime is how long after a channel's end a refusal may still be about it: sshd counts a
	// session until its child is reaped and its loop has gone round.
	settleTime = 2 * time.Second

	// settleRetry is the pause between tries within settleTime.
	settleRetry = 20 * time.Millisecond
)

// sessionQueue opens session channels for many clients on a connection that allows only some at a
// time (sshd's MaxSessions, 10 by default), and some ahead of need, which saves their clients a round
// trip. The limit is not known beforehand: a refusal while other channels are open teaches it. From
// then on clients wait in the order in which they came, and each channel that ends lets the next one
// in. A refusal with no other channel open is final.
//
// Channels are opened for the queue, not for one client: whichever is open first goes to who came
// first. What nobody waits for is kept as a spare. While anybody waits no spare is made, so spares
// never cost a client its turn.
type sessionQueue struct {
	open   func(context.Context) (*Session, error)
	spares int // how many are kept

	over     chan struct{}  // closed by close
	openings sync.WaitGroup // what opens and closes channels

	mu      sync.Mutex
	closed  bool
	limit   int        // most that were seen open at once when one was refused; 0: not known
	opening int        // channels being opened
	opened  int        // channels open, spares among them
	ready   []*Session // the spares, the oldest first
	waiting []*visitor // in order of arrival
	ended   time.Time  // when a channel ended last
}

// visitor waits for a channel.
type visitor struct {
	turn chan opening // holds one once the visitor has left the queue
}

// opening is what came of one.
type opening struct {
	session *Session
	err     error
}

func newSessionQueue(open func(context.Context) (*Session, error), spares int) *sessionQueue {
	return &sessionQueue{open: open, spares: spares, over: make(chan struct{})}
}

// acquire returns an open session channel, after as long a wait as it takes; its end makes room for
// the next. The error is an *ssh.OpenChannelError when the node grants none at all, the end of ctx, or
// the end of the connection.
func (q *sessionQueue) acquire(ctx context.Context) (*Session, error) {
	v := q.enter()
	// The first in the queue now and then has one opened beyond the limit.
	probe := time.NewTicker(probeInterval)
	defer probe.Stop()
	for {
		select {
		case o := <-v.turn:
			return o.session, o.err
		case <-ctx.Done():
			q.leave(v)
			return nil, context.Cause(ctx)
		case <-probe.C:
			q.probe(v)
		}
	}
}

// enter takes a place at the end of the queue.
func (q *sessionQueue) enter() *visitor {
	v := &visitor{turn: make(chan opening, 1)}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, v)
	q.balanceLocked()
	return v
}

// leave takes v out of the queue; a channel that it was given meanwhile goes to the next.
func (q *sessionQueue) leave(v *visitor) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiting, v); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return
	}
	if o := <-v.turn; o.err == nil {
		q.keepLocked(o.session)
	}
}

func (q *sessionQueue) probe(v *visitor) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > q.opening && q.waiting[0] == v {
		q.startLocked()
	}
}

// fill makes the first spares.
func (q *sessionQueue) fill() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.balanceLocked()
}

// balanceLocked hands out what is open and has opened what is missing. q.mu is held.
func (q *sessionQueue) balanceLocked() {
	for len(q.waiting) > 0 && len(q.ready) > 0 {
		s := q.ready[0]
		q.ready = slices.Delete(q.ready, 0, 1)
		q.answerLocked(opening{session: s})
	}
	wanted := len(q.waiting)
	if wanted == 0 {
		wanted = q.spares - len(q.ready)
	}
	for q.opening < wanted && (q.limit == 0 || q.opening+q.opened < q.limit) && !q.closed {
		q.startLocked()
	}
}

// answerLocked gives o to the first in the queue. q.mu is held.
func (q *sessionQueue) answerLocked(o opening) {
	v := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	v.turn <- o
}

// startLocked has a channel opened. It ends with the node's answer, or with the connection. q.mu is
// held.
func (q *sessionQueue) startLocked() {
	q.opening++
	q.openings.Go(func() {
		s, err := q.try()
		if err != nil {
			q.fail(err)
			return
		}
		q.succeed(s)
		s.whenClosed(func() { q.release(s) })
	})
}

// try opens a channel; a refusal that may be about a channel which has just ended is not yet an
// answer.
func (q *sessionQueue) try() (*Session, error) {
	for {
		s, err := q.open(context.Background())
		if err == nil || !q.unsettled() || !refusedForNow(err) {
			return s, err
		}
		timer := time.NewTimer(settleRetry)
		select {
		case <-q.over:
			timer.Stop()
			return nil, err
		case <-timer.C:
		}
	}
}

// unsettled reports whether a channel has ended so lately that sshd may still count it.
func (q *sessionQueue) unsettled() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.ended.IsZero() && time.Since(q.ended) < settleTime && (q.limit == 0 || q.opened < q.limit)
}

// refusedForNow tells a refusal by sshd's count from one that no wait will change. sshd answers
// "open failed" with the reason of a failed connect (serverloop.c, server_input_channel_open).
func refusedForNow(err error) bool {
	var refused *ssh.OpenChannelError
	return errors.As(err, &refused) && refused.Reason != ssh.UnknownChannelType
}

// succeed counts an open channel; one beyond the known limit raises it.
func (q *sessionQueue) succeed(s *Session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opening--
	q.opened++
	if q.limit > 0 && q.opened > q.limit {
		q.limit = q.opened
	}
	q.keepLocked(s)
}

// keepLocked gives a channel to the first in the queue. With none it is a spare, and one too many is
// closed. q.mu is held.
func (q *sessionQueue) keepLocked(s *Session) {
	q.ready = append(q.ready, s)
	q.balanceLocked()
	if len(q.ready) > q.spares || q.closed {
		q.ready = slices.DeleteFunc(q.ready, func(r *Session) bool { return r == s })
		q.openings.Go(s.discard)
	}
}

// fail takes a failed opening into account. A refusal while others are open is about their number; any
// other is the answer to the first in the queue. With nobody there it was a spare's: the next client,
// or the next channel's end, tries again.
func (q *sessionQueue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opening--
	switch {
	case refusedForNow(err) && q.opening+q.opened > 0:
		q.limit = max(q.opened, 1)
	case len(q.waiting) > 0:
		q.answerLocked(opening{err: err})
	}
	if len(q.waiting) > 0 {
		q.balanceLocked()
	}
}

// release makes room when a channel has ended. A spare that the node has closed isn't replaced until
// it is missed: what closes one may close them all.
func (q *sessionQueue) release(s *Session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opened--
	q.ended = time.Now()
	if i := slices.Index(q.ready, s); i >= 0 {
		q.ready = slices.Delete(q.ready, i, i+1)
		return
	}
	q.balanceLocked()
}

// close gives the spares up and waits for openings under way, which end with the connection at the
// latest. Nobody is in the queue any more.
func (q *sessionQueue) close() {
	q.mu.Lock()
	q.closed = true
	close(q.over)
	spares := q.ready
	q.ready = nil
	q.mu.Unlock()
	for _, s := range spares {
		s.discard()
	}
	q.openings.Wait()
}
