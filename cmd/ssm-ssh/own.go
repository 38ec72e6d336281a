package main

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/tty"
	"ssm-ssh/sshproxy"
)

// runOwn runs the session on a connection of this call's own, and serves others by it where
// ControlMaster asks for that.
func (c *caller) runOwn(ctx context.Context) (int, error) {
	client, err := connect(ctx, c.opts, c.log.Logf)
	if err != nil {
		return 0, err
	}
	return c.runOn(ctx, client)
}

// runOn runs the session on a connection, whose owner it becomes.
func (c *caller) runOn(ctx context.Context, client *sshproxy.Client) (status int, err error) {
	forwarder := sshproxy.NewForwarder(client, forwardConfig(c.opts, c.log))
	defer func() {
		forwarder.Stop()
		err = errors.Join(err, client.Close()) // a node that doesn't answer would keep its channels open
		forwarder.Close()
	}()
	if err := c.startForwards(forwarder); err != nil {
		return 0, err
	}
	others, err := c.serveOthers(ctx, client, forwarder)
	if err != nil {
		return 0, err
	}
	defer others.finish()
	c.runLocalCommand(ctx)
	c.log.Logf(1, "Entering interactive session.")
	if c.opts.StdioForward != nil {
		return c.forwardStdio(ctx, client)
	}
	if c.opts.SessionType == sshopt.SessionNone {
		return c.idle(ctx, client, others.stopped)
	}
	return c.runSession(ctx, client, others.open)
}

// idle is -N: nothing runs, the connection lasts. A master that is told to stop or to exit ends as
// ssh's does: without a word, with 255.
func (c *caller) idle(ctx context.Context, client *sshproxy.Client, stopped <-chan struct{}) (int, error) {
	if err := c.sessionBegun(); err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-stopped:
		return exitError, client.Lost()
	case <-client.Done():
		return 0, client.Err()
	}
}

// runSession runs the wish on a connection in this process. The descriptors are read and written
// as they are: their flags are shared with whoever gave them to us.
func (c *caller) runSession(ctx context.Context, client *sshproxy.Client, open func(context.Context) (*sshproxy.Session, error)) (int, error) {
	w := wishOf(c.opts)
	session, err := open(ctx)
	if err != nil {
		return 0, openError(err)
	}
	defer session.Close()
	streams, err := openStreams(c.std)
	if err != nil {
		return 0, err
	}
	defer streams.close()
	request := w.request(streams.in, streams.out, streams.err)
	if w.tty {
		request.Modes, request.Window = tty.Modes(c.std.in), windowOf(c.std.in)
		request.OnTTYRefused = func() { c.log.Logf(0, "PTY allocation request failed on channel 0") }
	}
	if err := session.Start(ctx, request); err != nil {
		return 0, err
	}
	if err := c.sessionBegun(); err != nil {
		return 0, err
	}
	if w.tty && !session.TTYRefused() {
		leave, err := c.enterRaw(func() { session.WindowChange(windowOf(c.std.in)) })
		if err != nil {
			return 0, err
		}
		defer leave()
	}
	// Closing the session would not do: without a pty, sshd answers that when the command has ended only.
	// Other connections that a session may be on end with the master that has made them.
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	status, ok := session.Wait()
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case ok:
		c.sayClosed(w, "Connection to %s closed.")
		c.log.Logf(1, "Exit status %d", status)
		return status, nil
	}
	if err := session.Lost(); err != nil {
		return 0, err
	}
	c.sayClosed(w, "Connection to %s closed.")
	return exitError, nil
}

// openError puts a refused session channel in OpenSSH's words (channels.c, channel_input_open_failure).
func openError(err error) error {
	var refused *ssh.OpenChannelError
	if !errors.As(err, &refused) {
		return err
	}
	return textErrorf(err, "channel 0: open failed: %s: %s", openReason(refused.Reason), refused.Message)
}

// openReason is the reason code of RFC 4254 section 5.1 in OpenSSH's words (channels.c, reason2txt).
func openReason(reason ssh.RejectionReason) string {
	switch reason {
	case ssh.Prohibited:
		return "administratively prohibited"
	case ssh.ConnectionFailed:
		return "connect failed"
	case ssh.UnknownChannelType:
		return "unknown channel type"
	case ssh.ResourceShortage:
		return "resource shortage"
	}
	return "unknown reason"
}

// sayClosed is the line that ends a session on a terminal.
func (c *caller) sayClosed(w wish, format string) {
	if w.tty {
		c.log.Logf(0, format, c.opts.Host)
	}
}

// windowOf is the size of a terminal; zero where it is none.
func windowOf(fd int) sshproxy.Window { return sshproxy.Window(tty.Size(fd)) }

// enterRaw puts the terminal of stdin in raw mode and calls resized at each change of its size, until
// the function that it returns is called. Where stdin is no terminal, as with -tt, it leaves all
// as it is.
func (c *caller) enterRaw(resized func()) (leave func(), err error) {
	fd := c.std.in
	if !tty.IsTerminal(fd) {
		return func() {}, nil
	}
	state, err := tty.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	unwatch := watchWindow(resized)
	return sync.OnceFunc(func() {
		unwatch()
		state.Restore() //nolint:errcheck // a terminal that has gone needs no mode
	}), nil
}
