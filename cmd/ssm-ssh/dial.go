package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"ssm-ssh/sshproxy"
)

const (
	// helloLimit bounds the wait for a master's HELLO where no ConnectTimeout does. Stock ssh 9.2
	// waits for ever.
	helloLimit = 15 * time.Second
	// hangUpPause is how long a call waits before it asks again who has hung up on it: a master at its
	// end, whose socket goes in a moment, or something else.
	hangUpPause = 20 * time.Millisecond
)

// identityExtension is the pair in our master's HELLO that holds the identity of its node. A path of
// the user's, as Ansible's, doesn't tell region, profile, account or document apart.
const identityExtension = "identity@ssm-ssh"

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
		return nil, fmt.Errorf("%w: %w", errNoMaster, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		if c.share.create == createNone {
			c.log.lines(-1, err.Error())
		}
		return nil, errNoMaster
	case errors.Unwrap(err) == nil: // the path itself won't do
		return nil, err
	}
	c.log.lines(-1, err.Error())
	c.disableSharing()
	return nil, errUnshared
}

// dialSettled connects to a living master, or to none when it has ended. What hangs up every time is no
// master: the path is taken.
func (c *caller) dialSettled(ctx context.Context) (mux *sshproxy.MuxClient, err error) {
	for range masterTries {
		mux, err = c.dialMaster(ctx)
		if !errors.Is(err, sshproxy.ErrMasterGone) {
			return mux, err
		}
		select {
		case <-time.After(hangUpPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	var text *sshproxy.TextError
	if errors.As(err, &text) {
		c.log.lines(-1, text.Error())
	}
	c.disableSharing()
	return nil, errUnshared
}

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
