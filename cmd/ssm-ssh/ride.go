package main

import (
	"context"
	"errors"
	"os"
	"syscall"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

// ride runs the session through a master. An error that is ErrMasterGone or a refusal means that
// nothing was run.
func (c *caller) ride(ctx context.Context, mux *sshproxy.MuxClient) (int, error) {
	if !c.forwarded {
		if err := c.openForwards(ctx, mux); err != nil {
			return 0, err
		}
	}
	if c.opts.StdioForward != nil {
		return c.rideStdio(ctx, mux)
	}
	if c.opts.SessionType == sshopt.SessionNone {
		return c.hold(ctx, mux)
	}
	w := wishOf(c.opts)
	request := sshproxy.MuxSessionRequest{
		Command: w.command, Subsystem: w.subsystem, TTY: w.tty, Term: w.term, Agent: w.agent, Env: w.env,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}
	if c.opts.StdinNull {
		request.Stdin = nil
	}
	if w.tty && c.opts.EscapeChar > 0 {
		request.Escape = byte(c.opts.EscapeChar)
	}
	var term *terminal
	request.OnTTYFail = func() { term.leave() }
	session, err := mux.NewSession(ctx, request)
	if err != nil {
		return 0, err
	}
	if err := c.sessionBegun(); err != nil {
		return 0, err
	}
	if w.tty {
		// The master has read the terminal's own modes by now, so they may change.
		resized := func() { syscall.Kill(session.MasterPID(), syscall.SIGWINCH) } //nolint:errcheck // another user's master can't be told
		if term, err = c.enterRaw(resized); err != nil {
			return 0, err
		}
		defer term.leave()
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.passSignal(ctx, w, session.Signal, ended)
		session.Close()
	})
	defer stop()
	status, ok := session.Wait()
	close(ended)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	term.leave()
	c.sayClosed(w, "Shared connection to %s closed.")
	if !ok {
		return exitError, nil
	}
	return status, nil
}

// hold is -N through a master: the connection is kept as long as both ends want it.
func (c *caller) hold(ctx context.Context, mux *sshproxy.MuxClient) (int, error) {
	if _, err := mux.Check(ctx); err != nil {
		return 0, err
	}
	if err := c.sessionBegun(); err != nil {
		return 0, err
	}
	if err := mux.Hold(ctx); ctx.Err() != nil || !errors.Is(err, sshproxy.ErrMasterGone) {
		return 0, err
	}
	return exitError, nil
}
