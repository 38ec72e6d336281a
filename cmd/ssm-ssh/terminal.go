package main

import (
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"ssm-ssh/internal/tty"
	"ssm-ssh/sshproxy"
)

// terminal is the caller's terminal while a session has it: in raw mode, except while the program is
// stopped or asks for something. Where stdin is no terminal, as with -tt, nothing is changed.
type terminal struct {
	fd      int
	resized func()         // called at each change of its size, one at a time
	signals chan os.Signal // nil: no terminal
	watched sync.WaitGroup
	lent    atomic.Bool

	mu    sync.Mutex
	state *tty.State // what to restore; nil: it is as it was
	over  bool       // given back for good
}

// windowOf is the size of a terminal; zero where it is none.
func windowOf(fd int) sshproxy.Window { return sshproxy.Window(tty.Size(fd)) }

// enterRaw puts the terminal of stdin in raw mode until leave is called.
func (c *caller) enterRaw(resized func()) (*terminal, error) {
	t := &terminal{fd: c.std.in, resized: resized}
	if !tty.IsTerminal(t.fd) {
		t.over = true
		return t, nil
	}
	var err error
	if t.state, err = tty.MakeRaw(t.fd); err != nil {
		return nil, err
	}
	t.signals = make(chan os.Signal, 8) // of three kinds; many of a kind are as good as one
	signal.Notify(t.signals, syscall.SIGWINCH, syscall.SIGCONT)
	notify(t.signals, syscall.SIGTSTP)
	t.watched.Go(t.watch)
	return t, nil
}

// watch heeds what happens to the terminal from outside. ssh leaves SIGTSTP to its default, and so a raw
// terminal to whoever has sent it; ~^Z, which tells ssh itself, does as we do here.
func (t *terminal) watch() {
	for s := range t.signals {
		switch s {
		case syscall.SIGTSTP:
			if !t.lent.Load() { // else it is for who has the terminal
				t.suspend()
			}
		case syscall.SIGCONT:
			t.reenter()
			t.resized()
		default:
			t.resized()
		}
	}
}

// leave gives the terminal back for good, as it was. It may be called again, and on nil.
func (t *terminal) leave() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.restoreLocked()
	over := t.over
	t.over = true
	t.mu.Unlock()
	if !over {
		signal.Stop(t.signals)
		close(t.signals)
		t.watched.Wait()
	}
}

// lend calls f with the terminal as it was before the session.
func (t *terminal) lend(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.restoreLocked()
	t.lent.Store(true)
	f()
	t.lent.Store(false)
	if t.over {
		return
	}
	if state, err := tty.MakeRaw(t.fd); err == nil { // else it has gone, which the session sees by itself
		t.state = state
	}
}

// suspend stops the program until it is continued (clientloop.c, client_suspend_self).
func (t *terminal) suspend() {
	t.lend(stopSelf)
	t.resized()
}

// reenter makes a terminal raw that another program has had since: one whose SIGSTOP we could not see.
func (t *terminal) reenter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != nil {
		t.state.Again() //nolint:errcheck // as in lend
	}
}

func (t *terminal) restoreLocked() {
	t.state.Restore() //nolint:errcheck // a terminal that has gone needs no mode
	t.state = nil
}

// stopSelf stops the process and returns when it is continued. As SIGTSTP's default it does nothing where
// there would be nobody to continue it: in an orphaned process group, as that of a session's leader.
// That default is out of reach once Go's runtime has taken the signal (runtime, sigdisable).
func stopSelf() {
	if orphaned() {
		return
	}
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	if syscall.Kill(os.Getpid(), syscall.SIGSTOP) == nil {
		<-continued // any thread may have taken the stop, this one go on for a moment
	}
}

// orphaned tells whether our process group is: whether our parent, which stands for those of the whole
// group, is of another session. One of our own group we take for a script that a shell watches over.
func orphaned() bool {
	parent := os.Getppid()
	theirs, err := unix.Getsid(parent)
	ours, ourErr := unix.Getsid(0)
	return parent == 0 || err != nil || ourErr != nil || theirs != ours
}
