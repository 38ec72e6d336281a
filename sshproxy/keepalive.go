package sshproxy

import (
	"sync/atomic"
	"time"
)

// keepaliveRequest is OpenSSH's (PROTOCOL, 2.8): the peer answers even if with a refusal.
const keepaliveRequest = "keepalive@openssh.com"

// startKeepAlive begins the two watches that the configuration asks for.
func (c *Client) startKeepAlive() {
	probe := c.prober()
	if c.cfg.ServerAliveInterval > 0 {
		c.wg.Go(func() { c.watchServer(probe) })
	}
	if c.cfg.ChannelKeepAlive > 0 {
		c.wg.Go(func() { c.feedService(probe) })
	}
}

// prober returns a function that sends a keepalive unless one is still unanswered: a dead peer would
// gain nothing from more, and x/crypto/ssh lets one global request wait at a time.
func (c *Client) prober() func() {
	var pending atomic.Bool
	return func() {
		if pending.Swap(true) {
			return
		}
		c.wg.Go(func() {
			defer pending.Store(false)
			// Its answer counts as traffic; an error is the end of the connection, seen elsewhere.
			_, _, _ = c.conn.SendRequest(keepaliveRequest, true, nil)
		})
	}
}

// watchServer is ServerAliveInterval: after ServerAliveCountMax silent intervals with a probe in
// each the connection is given up (clientloop.c, server_alive_check).
func (c *Client) watchServer(probe func()) {
	interval := c.cfg.ServerAliveInterval
	timer := time.NewTimer(interval)
	defer timer.Stop()
	missed, heard := 0, c.wire.lastRead.Load()
	for {
		select {
		case <-c.done:
			return
		case <-timer.C:
		}
		if last := c.wire.lastRead.Load(); last != heard {
			missed, heard = 0, last
		}
		if idle := c.wire.readIdle(); idle < interval {
			timer.Reset(interval - idle)
			continue
		}
		if missed >= c.cfg.ServerAliveCountMax {
			c.end(&TextError{Text: "Timeout, server " + c.cfg.Host + " not responding."})
			return
		}
		missed++
		probe()
		timer.Reset(interval)
	}
}

// feedService keeps the service's idle clock from running out under a silent command: that clock
// counts what the client sends. It does nothing while no session is open.
func (c *Client) feedService(probe func()) {
	interval := c.cfg.ChannelKeepAlive
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-timer.C:
		}
		idle := c.wire.writeIdle()
		if idle < interval {
			timer.Reset(interval - idle)
			continue
		}
		if c.sessions.Load() > 0 {
			probe()
		}
		timer.Reset(interval)
	}
}
