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
	clock := c.watchClock()
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
		if err := c.stuck(time.Now()); err != nil {
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

// stuck judges in place of the send loop while that waits in Flush, as it may for
// ever when the peer sends but does not read: the node is gone if silence says so,
// else this websocket is.
func (c *Conn) stuck(now time.Time) error {
	since := c.flushing.Load()
	if since == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.silence(now); err != nil {
		return err
	}
	if now.Sub(c.born)-time.Duration(since) >= c.cfg.PingInterval {
		return errStuck
	}
	return nil
}

// clockWatch notices that the computer has slept: the wall clock has moved on, the
// monotonic one has not. Go's stands still in sleep on Linux (CLOCK_MONOTONIC;
// clock_gettime(2)) and on macOS (mach_absolute_time), and so do timers. So there
// is nothing to wait for: the loops compare whenever they wake up for reasons of
// their own, which is at the next ping at the latest.
type clockWatch struct {
	wall    func(now time.Time) time.Time
	last    time.Time // by the monotonic clock
	lastDay time.Time // by the wall clock
}

// maxClockJump is far above what time synchronization corrects in one step on a
// running computer.
const maxClockJump = 10 * time.Second

func (c *Conn) watchClock() clockWatch {
	now := time.Now()
	return clockWatch{wall: c.cfg.wall, last: now, lastDay: c.cfg.wall(now)}
}

// jumped reports whether the clocks have parted since the last call.
func (w *clockWatch) jumped(now time.Time) bool {
	day := w.wall(now)
	slept := day.Sub(w.lastDay) - now.Sub(w.last)
	w.last, w.lastDay = now, day
	return slept > maxClockJump
}
