package main

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	if !client.HostKeyChanged() { // it was said that there is none then
		if err := c.startForwards(forwarder); err != nil {
			return 0, err
		}
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
	return c.runSession(ctx, client, forwarder, others)
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

// errEscaped ends a session whose user has asked for that (~.).
var errEscaped = errors.New("ended by the user")

// runSession runs the wish on a connection in this process. The descriptors are read and written
// as they are: their flags are shared with whoever gave them to us.
func (c *caller) runSession(ctx context.Context, client *sshproxy.Client, forwarder *sshproxy.Forwarder, own service) (int, error) {
	w := wishOf(c.opts)
	session, err := own.open(ctx)
	if err != nil {
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			c.sayRefused(refused)
			err = textErrorf(err, "") // all is said
		}
		return 0, err
	}
	defer session.Close()
	client.SettleHostKeys(ctx)
	streams, err := openStreams(c.std)
	if err != nil {
		return 0, err
	}
	defer streams.close()
	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	request := w.request(streams.in, streams.out, streams.err)
	var term *terminal
	if w.tty {
		request.Modes, request.Window = tty.Modes(c.std.in), windowOf(c.std.in)
		// Before the command is started: what is typed from now on is its input.
		if term, err = c.enterRaw(func() { session.WindowChange(windowOf(c.std.in)) }); err != nil {
			return 0, err
		}
		defer term.leave()
		request.OnTTYRefused = func() {
			term.leave()
			c.log.Logf(-1, "%s", refusalText("pty-req"))
		}
	}
	if w.tty && c.opts.EscapeChar > 0 {
		request.Escapes = &sshproxy.Escapes{
			Char: byte(c.opts.EscapeChar), Connections: own.connections, End: func() { quit(errEscaped) },
			Owner: &ownEscapes{caller: c, ctx: ctx, term: term, forwarder: forwarder},
		}
	}
	// Closing the session would not do: without a pty, sshd answers that when the command has ended only.
	// Other connections that a session may be on end with the master that has made them.
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.passSignal(ctx, w, session.Signal, ended)
		client.Close()
		session.Close() // which stops waiting for a stdout that takes nothing
	})
	defer stop()
	status, err := c.follow(ctx, session, request)
	close(ended)
	term.leave()
	var text *sshproxy.TextError
	switch cause := context.Cause(ctx); {
	case cause == errEscaped:
		status = exitNone
	case cause != nil:
		return 0, cause
	case w.tty && errors.As(err, &text) && text.Quit: // its line is one of two to OpenSSH
		c.log.say(explain(err, c.opts.Host))
	case err != nil:
		return 0, err
	}
	c.sayClosed(w, "Connection to %s closed.")
	c.log.Logf(1, "Exit status %d", status)
	return status & 0xff, nil
}

// exitNone is the status of a session that ended without one, before it is cut to the byte that a process
// has for it.
const exitNone = -1

// follow starts a session and returns the status with which it ended.
func (c *caller) follow(ctx context.Context, session *sshproxy.Session, request sshproxy.SessionRequest) (int, error) {
	if err := session.Start(ctx, request); err != nil {
		return 0, err
	}
	if err := c.sessionBegun(); err != nil {
		return 0, err
	}
	if request.TTY && windowOf(c.std.in) != request.Window {
		session.WindowChange(windowOf(c.std.in)) // resized before there was anyone to tell
	}
	if status, ok := session.Wait(); ok {
		return status, nil
	}
	return exitNone, session.Lost()
}

// sayRefused says that a channel was refused, in OpenSSH's words and at its level (channels.c,
// channel_input_open_failure).
func (c *caller) sayRefused(refused *ssh.OpenChannelError) {
	c.log.Logf(0, "channel 0: open failed: %s: %s", openReason(refused.Reason), refused.Message)
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

// sayClosed is the line that ends a session on a terminal: for the user, and not for the log
// (clientloop.c, client_loop; mux.c, mux_client_request_session).
func (c *caller) sayClosed(w wish, format string) {
	if w.tty && c.log.shows(0) {
		fmt.Fprintf(os.Stderr, format+"\r\n", c.opts.Host)
	}
}
