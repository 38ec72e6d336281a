package ssmchannel

import (
	"context"
	"time"
)

// suspectProbes is how many probes without an acknowledgement make the send loop
// ask for a ping.
const suspectProbes = 2

// keepalive pings the service, every PingInterval and when acknowledgements fail
// to come, and ends when nothing comes back. It does not look for the agent:
// websocket pings end at the service.
func (c *Conn) keepalive(ctx context.Context, l link) error {
	clock := newClockWatch()
	timer := time.NewTimer(c.cfg.PingInterval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.suspect:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if clock.jumped(time.Now()) {
			return errClockJump
		}
		if err := c.ping(ctx, l); err != nil {
			return err
		}
		timer.Reset(c.cfg.PingInterval)
	}
}

// ping returns errDeadPeer if nothing at all comes in within PingTimeout. A
// missing pong alone is no verdict: it may stand behind data.
func (c *Conn) ping(ctx context.Context, l link) error {
	started := time.Now()
	pingCtx, cancel := context.WithTimeout(ctx, c.cfg.PingTimeout)
	defer cancel()
	err := l.Ping(pingCtx)
	if err == nil || ctx.Err() != nil || l.LastRead().After(started) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health.stalled || c.health.stallEnd.After(started) {
		return nil // we did not read
	}
	return errDeadPeer
}

// clockWatch notices that the computer has slept: the wall clock has moved on,
// the monotonic one has not.
type clockWatch struct {
	last time.Time
}

// maxClockJump is far above what time synchronization corrects in one step on a
// running computer.
const maxClockJump = 10 * time.Second

func newClockWatch() clockWatch { return clockWatch{last: time.Now()} }

// jumped reports whether the clocks have parted since the last call.
func (w *clockWatch) jumped(now time.Time) bool {
	monotonic := now.Sub(w.last)
	wall := now.Round(0).Sub(w.last.Round(0))
	w.last = now
	return wall-monotonic > maxClockJump
}
