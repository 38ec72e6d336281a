package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"ssm-ssh/internal/selfexec"
	"ssm-ssh/internal/sshopt"
)

// sessionVerb runs a session whose caller has asked to have it in the background (-f).
const sessionVerb = "internal-session"

// sessionSpec is what such a process is told.
type sessionSpec struct {
	Options *sshopt.Options
	Name    string // what the program was called
}

// runInBackground is -f: the session runs in a process of its own, which asks on our terminal what
// it has to ask, and this call ends when the session has begun. OpenSSH forks at that point; a Go
// program has to start over, and does so before it has connected.
func (c *caller) runInBackground(ctx context.Context, name string) (int, error) {
	child, err := selfexec.Start(ctx, selfexec.Spec{
		Args:    []string{sessionVerb, c.opts.Host},
		Options: sessionSpec{c.opts, name},
		Stdout:  os.Stdout, Stderr: os.Stderr,
	})
	if err != nil {
		return 0, fmt.Errorf("starting the background session: %w", err)
	}
	return exitOK, child.WaitReady(ctx)
}

// runBackgroundSession is the role of that process.
func runBackgroundSession(ctx context.Context) int {
	parent, err := selfexec.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ssm-ssh: "+sessionVerb+": "+err.Error())
		return exitError
	}
	var spec sessionSpec
	if err := parent.Options(&spec); err != nil || spec.Options == nil {
		parent.Fail("ssm-ssh: unreadable options", exitError) //nolint:errcheck // nobody else to tell
		return exitError
	}
	spec.Options.ForkAfterAuthentication = false
	log, err := newLogSink(spec.Options)
	if err != nil {
		return log.say(explain(err, spec.Options.Host))
	}
	c := &caller{opts: spec.Options, log: log, std: stdio{in: 0, out: 1, err: 2}}
	ctx, signals, stop := withSignals(ctx)
	defer stop()
	c.signals = signals
	ctx, release := parent.Context(ctx)
	defer release()
	c.begun = func() error {
		if err := parent.Detach(syscall.SIGPIPE); err != nil {
			return err
		}
		return parent.Ready()
	}
	status := c.run(ctx, spec.Name)
	parent.Fail("", status) //nolint:errcheck // after Ready there is nobody to tell
	return status
}

// sessionBegun lets go of a caller that waits for the session's begin only.
func (c *caller) sessionBegun() error {
	if c.begun == nil {
		return nil
	}
	err := c.begun()
	if errors.Is(err, selfexec.ErrCallerGone) {
		return err
	}
	c.begun = nil
	return err
}
