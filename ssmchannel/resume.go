package ssmchannel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

const (
	// firstPause and maxPause space the attempts, before jitter.
	firstPause = 50 * time.Millisecond
	maxPause   = 5 * time.Second
	// attemptTimeout bounds ResumeSession and the dial, each.
	attemptTimeout = 15 * time.Second
	// soundLink is how long a link lives that ended for a reason of its own.
	soundLink = 10 * time.Second
	// firstDials is how often the first websocket is tried.
	firstDials = 4
)

// resumption is the memory between one lost link and the next: a link over which
// nothing came from the agent does not count as a success.
type resumption struct {
	attempts int
	since    time.Time // when the trouble began
}

// resume replaces a lost link. There is no new handshake and the numbers go on
// (agent: session/datachannel/datachannel.go, SetWebSocket); everything
// unacknowledged is sent again by linkOpened.
func (c *Conn) resume(r *resumption, cause error) (link, error) {
	if c.cfg.Resume == nil || c.cfg.ResumeFor < 0 || presigned(c.session.StreamURL) {
		return nil, edge(lostFor("no resume", cause))
	}
	c.mu.Lock()
	lost, heard, lived := c.health.lostSince, c.health.heard, c.health.lived
	c.mu.Unlock()
	r.lost(lost, heard, lived)
	c.cfg.Logf(1, "ssmchannel: websocket lost after %v: %v", lived.Round(time.Millisecond), cause)
	for {
		left := c.cfg.ResumeFor - time.Since(r.since)
		if left <= 0 {
			return nil, edge(lostFor(fmt.Sprintf("not resumed within %v", c.cfg.ResumeFor), cause))
		}
		if err := wait(c.life, min(r.pause(), left)); err != nil {
			return nil, net.ErrClosed
		}
		r.attempts++
		l, err := c.redial()
		switch {
		case err == nil:
			c.mu.Lock()
			c.counts.resumes++
			c.mu.Unlock()
			c.cfg.Logf(1, "ssmchannel: websocket replaced after %v, attempt %d",
				time.Since(lost).Round(time.Millisecond), r.attempts)
			return l, nil
		case c.life.Err() != nil:
			return nil, net.ErrClosed
		case errors.Is(err, ErrSessionGone):
			return nil, edge(fmt.Errorf("resuming: %w", err))
		}
		cause = err
		c.cfg.Logf(1, "ssmchannel: resuming, attempt %d: %v", r.attempts, err)
	}
}

// lost begins a new count of attempts, unless the lost link was part of the same
// trouble.
func (r *resumption) lost(at, heard time.Time, lived time.Duration) {
	switch {
	case r.since.IsZero(), lived >= soundLink:
		*r = resumption{since: at}
	case heard.After(r.since): // it worked, but do not hammer the API
		*r = resumption{since: at, attempts: min(r.attempts, 4)}
	}
}

// pause returns how long to wait before the next attempt; none before the first.
func (r *resumption) pause() time.Duration { return backoff(r.attempts) }

// backoff returns the wait before attempt n, counted from 0: doubling, with
// jitter over the upper half.
func backoff(n int) time.Duration {
	if n == 0 {
		return 0
	}
	d := min(firstPause<<min(n-1, 10), maxPause)
	return d/2 + rand.N(d/2)
}

// redial asks for a new token, since one serves one websocket, and connects with
// it. The URL may have changed with it.
func (c *Conn) redial() (link, error) {
	ctx, cancel := context.WithTimeout(c.life, attemptTimeout)
	defer cancel()
	s, err := c.cfg.Resume(ctx, c.session.ID)
	if err != nil {
		return nil, err
	}
	if s.Token == "" { // "timed out" (plugin: session/sessionhandler.go, ResumeSessionHandler)
		return nil, fmt.Errorf("%w: no token for it", ErrSessionGone)
	}
	if s.StreamURL == "" {
		s.StreamURL = c.session.StreamURL
	}
	s.ID = c.session.ID
	dialCtx, cancelDial := context.WithTimeout(c.life, attemptTimeout)
	defer cancelDial()
	return c.dial(dialCtx, s, c.events())
}

// events is what a link calls: both wake the send loop.
func (c *Conn) events() linkEvents {
	return linkEvents{
		beforeRead: func() {
			if c.acksDue.Load() && !c.acksTimed.Swap(true) {
				c.ackTimer.Reset(ackDelay)
			}
		},
		queued: func() { signal(c.sendable) },
	}
}
