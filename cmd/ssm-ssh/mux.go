package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"ssm-ssh/internal/report"
	"ssm-ssh/internal/selfexec"
	"ssm-ssh/sshproxy"
)

// masterTries bounds how often a call starts over because the master it had found ended before
// anything was run. One that ends so again and again isn't ours to wait for.
const masterTries = 5

var (
	// errNoMaster says that nobody serves the control path, so a master may be made.
	errNoMaster = errors.New("no control master")
	// errUnshared says that this call is to use a connection of its own.
	errUnshared = errors.New("connection is not shared")
)

// throughMaster runs the session through a master, a living one or one made for it. The error is
// errUnshared when that can't be and nothing was run.
func (c *caller) throughMaster(ctx context.Context) (int, error) {
	var gone error
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
			gone = err
			continue
		case errors.As(err, &refused):
			c.log.lines(-1, err.Error())
			c.disableSharing()
			return 0, errUnshared
		}
		return status, err
	}
	c.log.lines(-1, gone.Error())
	c.disableSharing()
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
	c.forwarded = false
	if c.share.ride && c.share.create != createNone {
		c.log.Logf(1, "auto-mux: Trying existing master at '%s'", c.share.path) // mux.c, muxclient
	}
	mux, err := c.dialSettled(ctx)
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

// makeMaster starts the master of the control path, or finds the one that another call has made
// while this one waited for its turn.
func (c *caller) makeMaster(ctx context.Context) (*sshproxy.MuxClient, error) {
	lock, err := c.waitForTurn(ctx)
	switch {
	case errors.Is(err, errNoRuntimeDir) && c.share.implicit:
		c.goUnshared(err)
		return nil, errUnshared
	case errors.Is(err, errNoRuntimeDir):
		// Of those who come at once each may make a master then; one of them gets the path.
		c.log.Logf(1, "making the control master without a lock: %v", err)
	case err != nil:
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
	if failure == nil { // the connection is ours
		c.forwarded = !c.share.implicit
		c.runLocalCommand(ctx)
	}
	return c.dialSettled(ctx)
}

// goUnshared has this call use a connection of its own, where the master would be one that nobody asked for and
// there is no place for its socket: a full disk or a folder of somebody else's is no reason not to connect.
func (c *caller) goUnshared(err error) {
	c.share = sharing{}
	c.log.Logf(0, "ssm-ssh: %v", &report.Error{Op: "share the connection", Target: c.opts.Host, Err: err,
		Hint: "each call makes its own; XDG_RUNTIME_DIR names another folder"})
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
