package ssmchannel

import (
	"net"
	"os"
	"sync"
	"time"
)

// deadline is a time limit that can be moved while others wait for it.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{} // closed when the limit has passed
}

func newDeadline() deadline { return deadline{passed: make(chan struct{})} }

// set moves the limit; the zero time is none.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer's function is closing it
	}
	d.timer = nil
	closed := isClosed(d.passed)
	if t.IsZero() {
		if closed {
			d.passed = make(chan struct{})
		}
		return
	}
	if wait := time.Until(t); wait > 0 {
		if closed {
			d.passed = make(chan struct{})
		}
		passed := d.passed
		d.timer = time.AfterFunc(wait, func() { close(passed) })
		return
	}
	if !closed {
		close(d.passed)
	}
}

// wait returns a channel that is closed when the limit passes.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// attempt repeats try until it reports that it is done, and waits in between for a signal on ready or
// for the end on done, which try then sees. Close and the deadline come first: net.ErrClosed,
// os.ErrDeadlineExceeded.
func attempt(limit *deadline, ready, closed, done <-chan struct{}, try func() bool) error {
	for {
		passed := limit.wait()
		switch {
		case isClosed(closed):
			return net.ErrClosed
		case isClosed(passed):
			return os.ErrDeadlineExceeded
		}
		if try() {
			return nil
		}
		select {
		case <-ready:
		case <-passed:
		case <-closed:
		case <-done:
		}
	}
}
