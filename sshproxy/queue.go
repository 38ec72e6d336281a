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

	// settlePatience is how long a client waits for that where it could have another connection.
	settlePatience = 250 * time.Millisecond
)

// sessionQueue opens session channels for many clients on a connection that allows only some at a
// time (sshd's MaxSessions, 10 by default), and some ahead of need, which saves their clients a round
// trip. The limit is not known beforehand: a refusal while other channels are open teaches it. From
// then on clients wait in the order in which they came, and each channel that ends lets the next one
// in; or, where more connections to the server can be had, one of those does (see lanes). A refusal with
// no other channel open is final.
//
// Channels are opened for the queue, not for one client: whichever is open first goes to who came
// first. What nobody waits for is kept as a spare. While anybody waits no spare is made, so spares
// never cost a client its turn.
type sessionQueue struct {
	spares  int // how many are kept
	another func(context.Context) (connection, error)

	life     context.Context // ended by stop
	end      context.CancelFunc
	openings sync.WaitGroup // what opens and closes channels and connections

	mu      sync.Mutex
	closed  bool
	lanes   []*lane    // the first is the master's own, always there
	opening int        // channels being opened
	ready   []spare    // the spares, the oldest first
	waiting []*visitor // in order of arrival
	probes  int        // made so far
	grow    growth
	lost    error         // the first connection has ended: nobody is let in any more
	vacant  chan struct{} // closed when it has and no session is left on another
}

// spare is a channel that nobody has asked for yet.
type spare struct {
	session *Session
	lane    *lane
}

// visitor waits for a channel.
type visitor struct {
	turn chan opening // holds one once the visitor has left the queue
}

// opening is what came of one.
type opening struct {
	spare
	err error
}

// newSessionQueue returns a queue for channels of a connection; another makes more connections to the
// same server, and is nil where none are to be had.
func newSessionQueue(first connection, spares int, another func(context.Context) (connection, error)) *sessionQueue {
	q := &sessionQueue{spares: spares, another: another, lanes: []*lane{{conn: first}}, vacant: make(chan struct{})}
	q.life, q.end = context.WithCancel(context.Background())
	return q
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
		q.keepLocked(o.spare)
	}
}

// probe tries beyond the limits, on one connection after the other.
func (q *sessionQueue) probe(v *visitor) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > q.opening && q.waiting[0] == v {
		q.probes++
		q.startLocked(q.lanes[q.probes%len(q.lanes)])
		q.growLocked()
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
	for len(q.waiting) > 0 && q.lost != nil {
		q.answerLocked(opening{err: q.lost})
	}
	for len(q.waiting) > 0 && len(q.ready) > 0 {
		s := q.ready[0]
		q.ready = slices.Delete(q.ready, 0, 1)
		q.answerLocked(opening{spare: s})
	}
	wanted := len(q.waiting)
	if wanted == 0 {
		wanted = q.spares - len(q.ready)
	}
	for q.opening < wanted && !q.closed && q.lost == nil {
		l := q.roomLocked()
		if l == nil {
			break
		}
		q.startLocked(l)
	}
	if len(q.waiting) > q.opening {
		q.growLocked()
	}
	q.settleLocked()
}

// answerLocked gives o to the first in the queue. q.mu is held.
func (q *sessionQueue) answerLocked(o opening) {
	v := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	v.turn <- o
}

// startLocked has a channel opened. It ends with the node's answer, or with the connection. q.mu is
// held.
func (q *sessionQueue) startLocked(l *lane) {
	q.opening++
	l.opening++
	q.openings.Go(func() {
		s, err := q.try(l)
		if err != nil {
			q.fail(l, err)
			return
		}
		q.succeed(spare{s, l})
		s.whenClosed(func() { q.release(s, l) })
	})
}

// try opens a channel; a refusal that may be about a channel which has just ended is not yet an
// answer.
func (q *sessionQueue) try(l *lane) (*Session, error) {
	for began := time.Now(); ; {
		s, err := l.conn.OpenSession(context.Background())
		if err == nil || !q.unsettled(l, began) || !refusedForNow(err) {
			return s, err
		}
		timer := time.NewTimer(settleRetry)
		select {
		case <-q.life.Done():
			timer.Stop()
			return nil, err
		case <-timer.C:
		}
	}
}

// unsettled reports whether a channel has ended so lately that sshd may still count it, and waiting for
// that is the best that can be done.
func (q *sessionQueue) unsettled(l *lane, began time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.growsLocked() && time.Since(began) > settlePatience {
		return false
	}
	return !l.ended.IsZero() && time.Since(l.ended) < settleTime && (l.limit == 0 || l.opened < l.limit)
}

// refusedForNow tells a refusal by sshd's count from one that no wait will change. sshd answers
// "open failed" with the reason of a failed connect (serverloop.c, server_input_channel_open).
func refusedForNow(err error) bool {
	var refused *ssh.OpenChannelError
	return errors.As(err, &refused) && refused.Reason != ssh.UnknownChannelType
}

// succeed counts an open channel; one beyond the known limit raises it.
func (q *sessionQueue) succeed(s spare) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opening--
	s.lane.opening--
	s.lane.opened++
	if s.lane.limit > 0 && s.lane.opened > s.lane.limit {
		s.lane.limit = s.lane.opened
	}
	q.keepLocked(s)
}

// keepLocked gives a channel to the first in the queue. With none it is a spare, and one too many, or
// one of a connection that is given back, is closed. q.mu is held.
func (q *sessionQueue) keepLocked(s spare) {
	if !s.lane.leaving {
		q.ready = append(q.ready, s)
	}
	q.balanceLocked()
	i := slices.Index(q.ready, s)
	switch {
	case i >= 0 && (len(q.ready) > q.spares || q.closed):
		q.ready = slices.Delete(q.ready, i, i+1)
		q.openings.Go(s.session.discard)
	case s.lane.leaving:
		q.openings.Go(s.session.discard)
	}
}

// fail takes a failed opening into account. A refusal while others are open is about their number; any
// other is the answer to the first in the queue, if the first connection gave it. With nobody there it
// was a spare's: the next client, or the next channel's end, tries again.
func (q *sessionQueue) fail(l *lane, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.opening--
	l.opening--
	switch {
	case refusedForNow(err) && l.opening+l.opened > 0:
		l.limit = max(l.opened, 1)
	case l != q.lanes[0]:
		q.dropLocked(l)
		q.restLocked()
	case len(q.waiting) > 0:
		q.answerLocked(opening{err: err})
	}
	if len(q.waiting) > 0 {
		q.balanceLocked()
	}
}

// release makes room when a channel has ended. A spare that the node has closed isn't replaced until
// it is missed: what closes one may close them all.
func (q *sessionQueue) release(s *Session, l *lane) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.opened--
	l.ended = time.Now()
	if i := slices.Index(q.ready, spare{s, l}); i >= 0 {
		q.ready = slices.Delete(q.ready, i, i+1)
		return
	}
	q.balanceLocked()
}

// stop gives up the connections that the queue has made, and makes no more.
func (q *sessionQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.end()
	for _, l := range slices.Clone(q.lanes[1:]) {
		q.dropLocked(l)
	}
}

// close does what stop does, gives the spares up and waits for openings under way, which end with the
// connection at the latest. Nobody is in the queue any more.
func (q *sessionQueue) close() {
	q.stop()
	q.mu.Lock()
	spares := q.ready
	q.ready = nil
	q.mu.Unlock()
	for _, s := range spares {
		s.session.discard()
	}
	q.openings.Wait()
}
