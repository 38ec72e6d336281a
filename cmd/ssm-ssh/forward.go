package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

// forwardsOf lists the forwards in the order in which ssh asks for them: those that listen here,
// then those that listen on the node (mux.c, muxclient; ssh.c, ssh_init_forwarding).
func forwardsOf(opts *sshopt.Options) []sshproxy.Forward {
	var all []sshproxy.Forward
	for _, kind := range []struct {
		kind sshproxy.ForwardKind
		list []sshopt.Forward
	}{
		{sshproxy.ForwardLocal, opts.LocalForward}, {sshproxy.ForwardDynamic, opts.DynamicForward},
		{sshproxy.ForwardRemote, opts.RemoteForward},
	} {
		for _, f := range kind.list {
			all = append(all, forwardOf(kind.kind, f))
		}
	}
	return all
}

func forwardOf(kind sshproxy.ForwardKind, f sshopt.Forward) sshproxy.Forward {
	return sshproxy.Forward{
		Kind:    kind,
		Listen:  sshproxy.Endpoint{Host: f.BindAddr, Port: f.BindPort, Path: f.BindPath},
		Connect: sshproxy.Endpoint{Host: f.Host, Port: f.HostPort, Path: f.Path},
	}
}

// forwardConfig is how forwards listen and where they may go.
func forwardConfig(opts *sshopt.Options, log *logSink) sshproxy.ForwardConfig {
	return sshproxy.ForwardConfig{
		AddressFamily: opts.AddressFamily, GatewayPorts: opts.GatewayPorts,
		StreamLocalBindMask: opts.StreamLocalBindMask, StreamLocalBindUnlink: opts.StreamLocalBindUnlink,
		PermitRemoteOpen: opts.PermitRemoteOpen, Logf: log.Logf,
	}
}

// openForwards asks a master for this call's forwards. A refusal makes the call give up on the
// master, as ssh does (mux.c, muxclient).
func (c *caller) openForwards(ctx context.Context, mux *sshproxy.MuxClient) error {
	for _, fwd := range forwardsOf(c.opts) {
		if _, err := mux.OpenForward(ctx, fwd); err != nil {
			var refused *sshproxy.MuxRefusedError
			if errors.As(err, &refused) {
				err = textErrorf(refused, "%v\nmuxclient: master forward request failed", err)
			}
			return err
		}
	}
	return nil
}

// startForwards opens this call's forwards on a connection of its own. What can't be opened is said,
// and is the end where ExitOnForwardFailure is set.
func (c *caller) startForwards(forwarder *sshproxy.Forwarder) error {
	for _, fwd := range forwardsOf(c.opts) {
		port, err := forwarder.Open(fwd)
		if err == nil {
			if fwd.Kind == sshproxy.ForwardRemote && fwd.Listen.Port == 0 && fwd.Listen.Path == "" {
				c.log.Logf(0, "Allocated port %d for remote forward to %s:%d", port, fwd.Connect.Host, fwd.Connect.Port)
			}
			continue
		}
		if err := c.forwardFailed(fwd, err); err != nil {
			return err
		}
	}
	return nil
}

// forwardFailed has ssh's words for a forward that isn't there (ssh.c, ssh_init_forwarding and
// ssh_confirm_remote_forward).
func (c *caller) forwardFailed(fwd sshproxy.Forward, err error) error {
	fatal := c.opts.ExitOnForwardFailure
	text := fmt.Sprintf("%v", err)
	switch {
	case fwd.Kind != sshproxy.ForwardRemote && fatal:
		return textErrorf(err, "%s\nCould not request local forwarding.", text)
	case fwd.Kind != sshproxy.ForwardRemote:
		text += "\nCould not request local forwarding."
	case fatal:
		return textErrorf(err, "Error: %s", text)
	default:
		text = "Warning: " + text
	}
	c.log.lines(0, text)
	return nil
}

// stdioEndpoint is where -W leads.
func stdioEndpoint(w *sshopt.StdioForward) sshproxy.Endpoint {
	return sshproxy.Endpoint{Host: w.Host, Port: w.Port, Path: w.Path}
}

// forwardStdio is -W on a connection of this call's own.
func (c *caller) forwardStdio(ctx context.Context, client *sshproxy.Client) (int, error) {
	streams, err := openStreams(c.std)
	if err != nil {
		return 0, err
	}
	defer streams.close()
	err = client.ForwardStdio(ctx, stdioEndpoint(c.opts.StdioForward), streams.in, streams.out)
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		c.sayRefused(refused)
		return 0, textErrorf(err, "stdio forwarding failed")
	}
	return exitOK, err
}

// rideStdio is -W through a master. A refusal is final there (mux.c, mux_client_request_stdio_fwd).
func (c *caller) rideStdio(ctx context.Context, mux *sshproxy.MuxClient) (int, error) {
	session, err := mux.NewStdioForward(ctx, stdioEndpoint(c.opts.StdioForward), os.Stdin, os.Stdout)
	if err != nil {
		var refused *sshproxy.MuxRefusedError
		if errors.As(err, &refused) {
			return 0, &sshproxy.TextError{Text: err.Error()} // no cause: nothing to fall back from
		}
		return 0, err
	}
	if err := c.sessionBegun(); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	session.Wait()
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return exitOK, nil
}

// changeForwards is -O forward and -O cancel. Of the first the ports that a node has chosen go to
// stdout; a refused second is said and does no harm (mux.c, muxclient).
func (c *caller) changeForwards(ctx context.Context, mux *sshproxy.MuxClient) (int, error) {
	for _, fwd := range forwardsOf(c.opts) {
		if c.opts.MuxCommand == sshopt.MuxCancel {
			if err := mux.CancelForward(ctx, fwd); err != nil {
				c.log.lines(-1, err.Error()+"\nmuxclient: master cancel forward request failed")
			}
			continue
		}
		port, err := mux.OpenForward(ctx, fwd)
		if err != nil {
			return 0, textErrorf(err, "%v\nmuxclient: master forward request failed", err)
		}
		if port != 0 {
			fmt.Fprintf(os.Stdout, "%d\n", port)
		}
	}
	return exitOK, nil
}
