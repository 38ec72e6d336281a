package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"ssm-ssh/internal/selfexec"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

const (
	// masterTries bounds how often a call starts over because the master it had found ended before
	// anything was run. One that ends so again and again isn't ours to wait for.
	masterTries = 5
	// helloLimit bounds the wait for a master's HELLO where no ConnectTimeout does. Stock ssh 9.2
	// waits for ever.
	helloLimit = 15 * time.Second
	// hangUpPause is how long a call waits before it asks again who has hung up on it: a master at its
	// end, whose socket goes in a moment, or something else.
	hangUpPause = 20 * time.Millisecond
)

var (
	// errNoMaster says that nobody serves the control path, so a master may be made.
	errNoMaster = errors.New("no control master")
	// errUnshared says that this call is to use a connection of its own.
	errUnshared = errors.New("connection is not shared")
)

// throughMaster runs the session through a master, a living one or one made for it. The error is
// errUnshared when that can't be and nothing was run.
func (c *caller) throughMaster(ctx context.Context) (int, error) {
	for range masterTries {
		mux, err := c.master(ctx)
		if err != nil {
			return 0, err
		}
		status, err := c.ride(ctx, mux)
		mux.Close()
		var refused *sshproxy.MuxRefusedError
		switch {
		case errors.Is(err, sshproxy.ErrMasterGone):
			continue
		case errors.As(err, &refused):
			c.log.Logf(-1, "%v", err)
			c.disableSharing()
			return 0, errUnshared
		}
		return status, err
	}
	return 0, errUnshared
}

// disableSharing is for a path that is taken by what we can't use: this call's connection is its
// own, as ssh's then is (mux.c, muxserver_listen).
func (c *caller) disableSharing() {
	if c.share.create == createNone {
		return
	}
	c.share.create = createNone
	c.log.Logf(-1, "ControlSocket %s already exists, disabling multiplexing", c.share.path)
}

// master connects to the control path's master, and makes one where there is none and there should
// be.
func (c *caller) master(ctx context.Context) (*sshproxy.MuxClient, error) {
	if c.share.path == "" {
		return nil, errUnshared
	}
	mux, err := c.dialMaster(ctx)
	switch {
	case err == nil && c.share.ride:
		return mux, nil
	case err == nil: // ControlMaster yes is never a client
		mux.Close()
		c.disableSharing()
		return nil, errUnshared
	case !errors.Is(err, errNoMaster):
		return nil, err
	case c.share.create != createBackground:
		return nil, errUnshared
	}
	return c.makeMaster(ctx)
}

// dialMaster connects to a living master.
func (c *caller) dialMaster(ctx context.Context) (*sshproxy.MuxClient, error) {
	limit := helloLimit
	if c.opts.ConnectTimeout > 0 {
		limit = c.opts.ConnectTimeout
	}
	limited, cancel := context.WithTimeoutCause(ctx, limit, errConnectTimeout)
	defer cancel()
	mux, err := sshproxy.DialMux(limited, c.share.path, sshproxy.ConnectTimeoutExtension(c.opts.ConnectTimeout))
	if err == nil {
		err = c.introduce(limited, mux)
	}
	switch {
	case err == nil:
		return mux, nil
	case errors.Is(err, errUnshared):
		return nil, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoMaster
	case errors.Is(err, sshproxy.ErrMasterGone):
		return nil, fmt.Errorf("%w: %w", errNoMaster, sshproxy.ErrMasterGone)
	case errors.Is(err, syscall.ECONNREFUSED):
		if c.share.create == createNone {
			c.log.Logf(-1, "%v", err)
		}
		return nil, errNoMaster
	case errors.Unwrap(err) == nil: // the path itself won't do
		return nil, err
	}
	c.log.Logf(-1, "%v", err)
	c.disableSharing()
	return nil, errUnshared
}

// identityExtension is the pair in our master's HELLO that holds the identity of its node. A path of
// the user's, as Ansible's, doesn't tell region, profile, account or document apart.
const identityExtension = "identity@ssm-ssh"

// introduce sees to it that a master leads where this call wants to go, hands it the credentials of
// today, and hears from it that it serves. After an error the connection is closed.
func (c *caller) introduce(ctx context.Context, mux *sshproxy.MuxClient) error {
	if !c.sameNode(mux) {
		mux.Close()
		c.log.Logf(-1, "ControlPath %s leads to another node, account or region; not using it", c.share.path)
		c.share.create = createNone
		return errUnshared
	}
	err := mux.HandOver(ctx, awsEnvironment(os.Environ()))
	if err == nil {
		_, err = mux.Check(ctx) // every request begins with it; here its time is limited
	}
	if err != nil {
		mux.Close()
	}
	return err
}

// sameNode tells whether a master leads where this call wants to go. Stock masters don't say, and
// for hosts that are no nodes the path is the whole key.
func (c *caller) sameNode(mux *sshproxy.MuxClient) bool {
	for _, e := range mux.Extensions() {
		if e.Name == identityExtension && c.share.identity != "" {
			return e.Value == c.share.identity
		}
	}
	return true
}

// makeMaster starts the master of the control path, or finds the one that another call has made
// while this one waited for its turn.
func (c *caller) makeMaster(ctx context.Context) (*sshproxy.MuxClient, error) {
	lock, err := c.waitForTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.unlock()
	if mux, err := c.dialSettled(ctx); !errors.Is(err, errNoMaster) {
		return mux, err
	}
	child, err := selfexec.Start(ctx, selfexec.Spec{
		Args:    []string{masterVerb, c.share.path},
		Options: masterSpec{Options: c.opts, Path: c.share.path, Persist: c.share.persist, Identity: c.share.identity, Implicit: c.share.implicit},
		Stderr:  os.Stderr,
	})
	if err != nil {
		return nil, fmt.Errorf("starting the control master: %w", err)
	}
	err = child.WaitReady(ctx)
	var failure *selfexec.Failure
	if errors.As(err, &failure) && failure.Code == statusPathTaken {
		err = nil // by a call that knows nothing of our lock, as stock ssh
	}
	if err != nil {
		return nil, err
	}
	return c.dialSettled(ctx)
}

// dialSettled connects to a living master. What hangs up every time is none: the path is taken.
func (c *caller) dialSettled(ctx context.Context) (*sshproxy.MuxClient, error) {
	for range masterTries {
		mux, err := c.dialMaster(ctx)
		if !errors.Is(err, sshproxy.ErrMasterGone) {
			return mux, err
		}
		select {
		case <-time.After(hangUpPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	c.disableSharing()
	return nil, errUnshared
}

// waitForTurn takes the lock of the control path, for at most ConnectTimeout.
func (c *caller) waitForTurn(ctx context.Context) (*creationLock, error) {
	if c.opts.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.opts.ConnectTimeout, errConnectTimeout)
		defer cancel()
	}
	lock, err := lockCreation(ctx, c.share.path)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return lock, err
}

// ride runs the session through a master. An error that is ErrMasterGone or a refusal means that
// nothing was run.
func (c *caller) ride(ctx context.Context, mux *sshproxy.MuxClient) (int, error) {
	if err := c.openForwards(ctx, mux); err != nil {
		return 0, err
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
	leave := func() {}
	request.OnTTYFail = func() { leave() }
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
		if leave, err = c.enterRaw(resized); err != nil {
			return 0, err
		}
		defer func() { leave() }()
	}
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	status, ok := session.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	leave()
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

// openSession opens a session channel.
type openSession func(context.Context) (*sshproxy.Session, error)

// serveOthers makes this call's own connection one that others may use, where ControlMaster asks
// for that without ControlPersist. This call's session is then one of many: open opens it in its
// turn. finish waits until the others have gone.
func (c *caller) serveOthers(ctx context.Context, client *sshproxy.Client, forwarder *sshproxy.Forwarder) (open openSession, finish func(), err error) {
	if c.share.create != createForeground {
		return client.OpenSession, func() {}, nil
	}
	listener, err := sshproxy.Listen(c.share.path)
	if errors.Is(err, sshproxy.ErrControlPathTaken) {
		c.disableSharing()
		return client.OpenSession, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	cfg := masterConfig(c.opts, c.share.identity, c.log)
	cfg.Forwarder = forwarder
	master := sshproxy.NewMaster(client, cfg)
	release := master.Hold()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := master.Serve(ctx, listener); err != nil && ctx.Err() == nil {
			c.log.Logf(1, "control master: %v", err)
		}
	}()
	return master.OpenSession, func() { release(); <-served }, nil
}

// masterConfig is how a master serves its clients, in the foreground or not.
func masterConfig(opts *sshopt.Options, identity string, log *logSink) sshproxy.MasterConfig {
	cfg := sshproxy.MasterConfig{
		Host: opts.Host, SendEnv: opts.SendEnv, SetEnv: opts.SetEnv, ForwardAgent: opts.ForwardAgent,
		Spares: opts.SSMSpareChannels, Forward: forwardConfig(opts, log), Logf: log.Logf,
	}
	if identity != "" {
		cfg.Extensions = []sshproxy.Extension{{Name: identityExtension, Value: identity}}
		cfg.Environment = new(adopter).adopt
	}
	return cfg
}

// command is -O: a word to the master, without a connection.
func (c *caller) command(ctx context.Context) (int, error) {
	if c.share.path == "" {
		return 0, textErrorf(nil, "No ControlPath specified for \"-O\" command")
	}
	limited, cancel := context.WithTimeoutCause(ctx, max(c.opts.ConnectTimeout, helloLimit), errConnectTimeout)
	defer cancel()
	mux, err := sshproxy.DialMux(limited, c.share.path)
	if err != nil {
		return 0, err
	}
	defer mux.Close()
	switch c.opts.MuxCommand {
	case sshopt.MuxCheck:
		pid, err := mux.Check(limited)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(os.Stderr, "Master running (pid=%d)\r\n", pid)
	case sshopt.MuxExit:
		if err := mux.Exit(limited); err != nil {
			return 0, err
		}
		c.confirm("Exit request sent.")
	case sshopt.MuxStop:
		if err := mux.Stop(limited); err != nil {
			return 0, err
		}
		c.confirm("Stop listening request sent.")
	case sshopt.MuxForward, sshopt.MuxCancel:
		return c.changeForwards(limited, mux)
	case sshopt.MuxProxy:
		return c.proxy(ctx, mux)
	}
	return exitOK, nil
}

// confirm says that a command was taken, unless quiet (mux.c).
func (c *caller) confirm(text string) {
	if c.opts.LogLevel != sshopt.LogQuiet {
		fmt.Fprint(os.Stderr, text+"\r\n")
	}
}
