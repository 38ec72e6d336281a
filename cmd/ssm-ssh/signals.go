package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"ssm-ssh/internal/tty"
)

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

func (e *signalError) Error() string { return fmt.Sprintf("killed by %v", e.signal) }

// signals are those that end the program. SIGINT has a channel of its own, since a question that is
// put in the middle of a session takes it for itself.
type signals struct{ interrupt, others chan os.Signal }

// withSignals returns a context that the first SIGINT, SIGTERM, SIGHUP or SIGQUIT ends, with a
// signalError as its cause. A signal that the caller has ignored (nohup) stays ignored. SIGPIPE is
// dropped.
//
// The function returned is for the end of the process. It leaves the signals taken: to give them
// back is a round between two threads for each, together 0.2 ms of the 3.5 that a warm call has.
func withSignals(ctx context.Context) (context.Context, *signals, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &signals{make(chan os.Signal, 1), make(chan os.Signal, 1)}
	notify(s.interrupt, syscall.SIGINT)
	notify(s.others, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	dropSIGPIPE()
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case caught := <-s.interrupt:
			cancel(&signalError{caught})
		case caught := <-s.others:
			cancel(&signalError{caught})
		case <-ctx.Done():
		}
	}()
	return ctx, s, func() {
		cancel(context.Canceled)
		<-done
	}
}

// notify has those signals delivered that our caller hasn't ignored.
func notify(to chan<- os.Signal, signals ...os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(to, s)
		}
	}
}

// holdInterrupt calls f, during which SIGINT doesn't end the program.
func (s *signals) holdInterrupt(f func()) {
	if signal.Ignored(syscall.SIGINT) {
		f()
		return
	}
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, syscall.SIGINT) // at no time is it at its default
	signal.Stop(s.interrupt)
	f()
	signal.Notify(s.interrupt, syscall.SIGINT)
	signal.Stop(dropped)
}

// signalGrace is how long a command has to end after a signal, and what it says then to arrive.
const signalGrace = time.Second

// signalNames are what SSH calls the signals that end the program (RFC 4254 section 6.10).
var signalNames = map[os.Signal]string{syscall.SIGINT: "INT", syscall.SIGTERM: "TERM", syscall.SIGHUP: "HUP", syscall.SIGQUIT: "QUIT"}

// passSignal sends the signal that has ended the call on to its command, which ssh doesn't, and gives that a moment
// to end: with SSMSendSignals any, else ^C where the command has no terminal, since a remote one does that itself.
// Without the keyword a signal that wasn't typed for us has ssh's effect.
func (c *caller) passSignal(ctx context.Context, w wish, send func(name string), ended <-chan struct{}) {
	var caught *signalError
	if !errors.As(context.Cause(ctx), &caught) {
		return
	}
	typed := !w.tty && caught.signal == syscall.SIGINT && tty.InForeground()
	if !typed && !c.opts.SSMSendSignals {
		return
	}
	send(signalNames[caught.signal])
	select {
	case <-ended:
	case <-time.After(signalGrace):
	}
}

// dropSIGPIPE makes a closed stdout or stderr an error of the write instead of our death. The signal
// is taken, since an ignored one would stay ignored in the programs we start.
func dropSIGPIPE() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// watchWindow calls changed at each SIGWINCH, one at a time, until the function it returns is
// called; that waits for the last one.
func watchWindow(changed func()) (stop func()) {
	signals := make(chan os.Signal, 1)
	done, gone := make(chan struct{}), make(chan struct{})
	signal.Notify(signals, syscall.SIGWINCH)
	go func() {
		defer close(gone)
		for {
			select {
			case <-signals:
				changed()
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
		<-gone
	}
}
