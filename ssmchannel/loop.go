package ssmchannel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// drainGrace is how long the receive loop goes on after a failed write: the end
// of the session may already be in the socket's buffer.
const drainGrace = 500 * time.Millisecond

// run carries the connection from its first link to its end.
func (c *Conn) run(l link) {
	defer close(c.done)
	err := c.carry(l)
	c.cancel(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.isDown = err, true
	if c.shake.err == nil && !c.shake.complete {
		c.shake.err = err
		if err == io.EOF {
			c.shake.err = &CloseError{}
		}
	}
}

// carry serves one link after the other and returns why there is no next.
func (c *Conn) carry(l link) error {
	var r resumption
	for {
		cause := c.serve(l)
		if err := c.final(cause); err != nil {
			return err
		}
		var err error
		if l, err = c.resume(&r, cause); err != nil {
			return err
		}
	}
}

// final returns the connection's end if cause is one, nil if the link can be
// replaced. After channel_closed the service hangs up, which another loop than
// the one that reads may notice first.
func (c *Conn) final(cause error) error {
	c.mu.Lock()
	ended := c.health.ended
	c.mu.Unlock()
	if ended != nil {
		cause = ended
	}
	var closed *CloseError
	switch {
	case isClosed(c.closed):
		return net.ErrClosed
	case errors.Is(cause, errTerminated):
		return io.EOF
	case errors.As(cause, &closed):
		return closed
	case ended != nil, errors.Is(cause, ErrNodeSilent), errors.Is(cause, ErrProtocol):
		return edge(cause)
	}
	return nil
}

// serve runs the three loops of a link until the first of them ends, closes the
// link and waits for the others. It returns why the first ended.
func (c *Conn) serve(l link) error {
	c.linkOpened()
	ctx, end := context.WithCancelCause(c.life)
	var loops sync.WaitGroup
	loops.Go(func() { end(c.recvLoop(ctx, l)) })
	loops.Go(func() { end(c.keepalive(ctx, l)) })
	loops.Go(func() {
		err := c.sendLoop(ctx, l)
		if !errors.Is(err, ErrNodeSilent) && !errors.Is(err, errClockJump) {
			wait(ctx, drainGrace)
		}
		end(err)
	})
	<-ctx.Done()
	l.Close()
	loops.Wait()
	c.linkLost()
	return context.Cause(ctx)
}

func (c *Conn) linkOpened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.health.linkUp, c.health.lostSince = time.Now(), time.Time{}
	c.health.stalled = false
	if c.out.unsent > 0 { // not the first link
		c.out.relinked(c.health.linkUp)
	}
}

func (c *Conn) linkLost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.health.lived = now.Sub(c.health.linkUp)
	c.health.linkUp, c.health.lostSince = time.Time{}, now
}

// stoppedTimer returns a timer to be reset.
//
// Nowhere here is a timer set that is due already. In the bubbles of the tests such
// a one runs on the spot, and there Go 1.26 sometimes hangs (golang/go#76052) or,
// under the race detector, crashes when two do at a time.
func stoppedTimer() *time.Timer {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return timer
}

// wait returns after d, or earlier with the end of ctx, whose cause it returns.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
