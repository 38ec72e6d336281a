package fdpass

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Poller waits for descriptors to become ready, any number of them in one goroutine. A wait is
// level-triggered and answered once.
type Poller struct {
	wake wake
	wg   sync.WaitGroup

	mu      sync.Mutex
	waiters map[*waiter]struct{}
	woken   bool // wake is raised
	closed  bool
}

// waiter is one blocked call. told has room for its only answer.
type waiter struct {
	fd     int
	events int16
	told   chan error
}

// NewPoller starts a Poller, which holds one descriptor; the caller closes it.
func NewPoller() (*Poller, error) {
	w, err := newWake()
	if err != nil {
		return nil, fmt.Errorf("fdpass: creating a poller: %w", err)
	}
	p := &Poller{wake: w, waiters: make(map[*waiter]struct{})}
	p.wg.Go(p.run)
	return p, nil
}

// Close ends all waits with os.ErrClosed and waits for the goroutine.
func (p *Poller) Close() error {
	p.mu.Lock()
	already := p.closed
	p.closed = true
	p.wakeLocked()
	p.mu.Unlock()
	p.wg.Wait()
	if already {
		return nil
	}
	return unix.Close(int(p.wake))
}

// wait returns nil when fd may be ready for events or has an error to report, os.ErrClosed when
// cancel or the Poller was closed first. fd must stay open until wait returns.
func (p *Poller) wait(fd int, events int16, cancel <-chan struct{}) error {
	w := &waiter{fd: fd, events: events, told: make(chan error, 1)}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return os.ErrClosed
	}
	p.waiters[w] = struct{}{}
	p.wakeLocked()
	p.mu.Unlock()

	select {
	case err := <-w.told:
		return err
	case <-cancel:
		p.mu.Lock()
		delete(p.waiters, w)
		// A sleeping poll(2) holds the file open, and its other end would not see the close.
		p.wakeLocked()
		p.mu.Unlock()
		return os.ErrClosed
	}
}

// wakeLocked makes run look at the waiters again. p.mu is held.
func (p *Poller) wakeLocked() {
	if p.woken {
		return
	}
	p.woken = true
	p.wake.raise()
}

// run asks for all waiters at once until the Poller is closed.
func (p *Poller) run() {
	var fds []unix.PollFd
	var asked []*waiter
	for {
		var open bool
		if fds, asked, open = p.gather(fds[:0], asked[:0]); !open {
			return
		}
		_, err := poll(fds, -1)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EBADF) {
			continue // EBADF: select(2), and a cancelled wait whose descriptor is closed by now
		}
		p.tell(fds, asked, err)
	}
}

// gather lists wake and every waiter; open is false when the Poller was closed.
func (p *Poller) gather(fds []unix.PollFd, asked []*waiter) (_ []unix.PollFd, _ []*waiter, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		for w := range p.waiters {
			w.told <- os.ErrClosed
		}
		clear(p.waiters)
		return fds, asked, false // and woken stays: nobody raises it again
	}
	if p.woken {
		p.wake.clear()
		p.woken = false
	}
	fds = append(fds, unix.PollFd{Fd: int32(p.wake), Events: unix.POLLIN})
	for w := range p.waiters {
		fds = append(fds, unix.PollFd{Fd: int32(w.fd), Events: w.events})
		asked = append(asked, w)
	}
	return fds, asked, true
}

// tell answers the waiters whose descriptor has news; a poll that failed is news for all.
func (p *Poller) tell(fds []unix.PollFd, asked []*waiter, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range asked {
		if fds[i+1].Revents == 0 && err == nil {
			continue
		}
		if _, waiting := p.waiters[w]; waiting {
			delete(p.waiters, w)
			w.told <- os.NewSyscallError("poll", err)
		}
	}
}

// ready asks about one descriptor without waiting. Errors count as ready: the call that follows
// will report them.
func ready(fd int, events int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return n != 0 || err != nil
		}
	}
}
