package sshproxy

import (
	"context"
	"errors"
	"slices"
	"time"
)

const (
	// maxLanes bounds a master's connections to its server.
	maxLanes = 16

	// growLimit bounds the making of one more, with what an agent may ask its user.
	growLimit = 30 * time.Second

	// growRest is the pause after one that could not be had, or was lost.
	growRest = 10 * time.Second

	// usualLimit is sshd's MaxSessions unless configured (sshd_config(5)).
	usualLimit = 10

	// laneIdle is how long a connection without a session is kept for the next.
	laneIdle = 15 * time.Second
)

// connection is what a queue needs of a Client.
type connection interface {
	OpenSession(context.Context) (*Session, error)
	Done() <-chan struct{}
	Close() error
}

// lane is one of the connections that a queue opens channels on. The first is the master's. Others are
// made, one at a time, when all are full and clients still wait; they are given back when no session has
// been open on them for a while, their spares with them. Sessions go to the first with room, so those
// made last fall idle first.
type lane struct {
	conn connection

	// Guarded by sessionQueue.mu.
	limit   int         // most that were seen open at once when one was refused; 0: not known
	opening int         // channels being opened
	opened  int         // channels open, spares among them
	ended   time.Time   // when a channel ended last
	leaving bool        // not among the queue's any more
	idle    *time.Timer // runs while there is no session; nil else
}

// growth is what is known of the making of connections.
type growth struct {
	under  bool      // one is being made
	refuse bool      // the server wants to know more of who we are than it can be told without asking
	after  time.Time // not before
}

// growsLocked reports whether another connection may be had, now or soon. q.mu is held.
func (q *sessionQueue) growsLocked() bool {
	return q.another != nil && !q.closed && q.lost == nil && !q.grow.refuse && len(q.lanes) < maxLanes &&
		time.Now().After(q.grow.after)
}

// growLocked has one more connection made. q.mu is held.
func (q *sessionQueue) growLocked() {
	if q.grow.under || !q.growsLocked() {
		return
	}
	q.grow.under = true
	q.openings.Go(func() {
		ctx, cancel := context.WithTimeout(q.life, growLimit)
		defer cancel()
		c, err := q.another(ctx)
		q.grown(c, err)
	})
}

// grown takes in what came of it.
func (q *sessionQueue) grown(c connection, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.grow.under = false
	if err != nil {
		// Asked again, the server would refuse again, and may lock us out for asking.
		q.grow.refuse = errors.Is(err, errAuthentication)
		q.restLocked()
		return
	}
	// The server's limit is what it was on the first connection; but that may have been learned in a throng
	// of ended sessions that still counted.
	l := &lane{conn: c, limit: max(q.lanes[0].limit, usualLimit)}
	if q.closed || q.lost != nil {
		q.leaveLocked(l)
		return
	}
	q.lanes = append(q.lanes, l)
	q.openings.Go(func() {
		<-c.Done()
		q.mu.Lock()
		defer q.mu.Unlock()
		if !l.leaving {
			q.dropLocked(l)
			q.restLocked()
		}
		q.balanceLocked()
	})
	q.balanceLocked()
}

// restLocked puts the next connection off. q.mu is held.
func (q *sessionQueue) restLocked() { q.grow.after = time.Now().Add(growRest) }

// roomLocked returns the first connection that may take one channel more. q.mu is held.
func (q *sessionQueue) roomLocked() *lane {
	for _, l := range q.lanes {
		if l.limit == 0 || l.opening+l.opened < l.limit {
			return l
		}
	}
	return nil
}

// usedLocked counts the sessions on a connection, those about to be included. q.mu is held.
func (q *sessionQueue) usedLocked(l *lane) int {
	used := l.opening + l.opened
	for _, s := range q.ready {
		if s.lane == l {
			used--
		}
	}
	return used
}

// settleLocked watches for connections that nobody uses. q.mu is held.
func (q *sessionQueue) settleLocked() {
	used := 0
	for _, l := range q.lanes[1:] {
		n := q.usedLocked(l)
		used += n
		switch {
		case n > 0 && l.idle != nil:
			l.idle.Stop()
			l.idle = nil
		case n == 0 && l.idle == nil:
			q.giveBackLaterLocked(l)
		}
	}
	if q.lost != nil && used == 0 {
		select {
		case <-q.vacant:
		default:
			close(q.vacant)
		}
	}
}

// giveBackLaterLocked gives a connection back if it stays idle. q.mu is held.
func (q *sessionQueue) giveBackLaterLocked(l *lane) {
	var timer *time.Timer
	timer = time.AfterFunc(laneIdle, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if l.idle == timer { // else it was stopped as it fired
			q.dropLocked(l)
			q.balanceLocked()
		}
	})
	l.idle = timer
}

// dropLocked parts with a connection: one that is lost, idle or of no use. q.mu is held.
func (q *sessionQueue) dropLocked(l *lane) {
	if l.leaving {
		return
	}
	q.lanes = slices.DeleteFunc(q.lanes, func(other *lane) bool { return other == l })
	if len(q.lanes) == 1 {
		// What was learned in the throng may have been too little.
		q.lanes[0].limit = 0
	}
	q.leaveLocked(l)
}

// leaveLocked closes a connection that isn't, or isn't any more, one of the queue's. q.mu is held.
func (q *sessionQueue) leaveLocked(l *lane) {
	l.leaving = true
	if l.idle != nil {
		l.idle.Stop()
		l.idle = nil
	}
	var spares []*Session
	q.ready = slices.DeleteFunc(q.ready, func(s spare) bool {
		if s.lane == l {
			spares = append(spares, s.session)
		}
		return s.lane == l
	})
	q.openings.Go(func() {
		_ = l.conn.Close() // its sessions end either way
		for _, s := range spares {
			s.discard()
		}
	})
}

// abandon lets nobody in any more, since the first connection has ended. The channel returned is closed
// when no session is left on the others.
func (q *sessionQueue) abandon(err error) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost = err
	q.balanceLocked()
	return q.vacant
}
