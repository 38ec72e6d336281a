package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

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
	case sshopt.MuxConnInfo:
		return c.tell(limited, mux, "connection")
	case sshopt.MuxChannels:
		return c.tell(limited, mux, "channels")
	case sshopt.MuxProxy:
		return c.proxied(ctx, mux)
	}
	return exitOK, nil
}

// proxied is -O proxy: the session runs as on a connection of one's own, whose packets go through the
// master (ssh.c, main: ssh_packet_set_mux).
func (c *caller) proxied(ctx context.Context, mux *sshproxy.MuxClient) (int, error) {
	client, err := mux.Proxied(ctx, sshproxy.Config{Host: c.opts.Host, Logf: c.log.Logf})
	if err != nil {
		return 0, err
	}
	c.share.create = createNone
	return c.runOn(ctx, client)
}

// tell prints what a master says of itself.
func (c *caller) tell(ctx context.Context, mux *sshproxy.MuxClient, what string) (int, error) {
	text, err := mux.Info(ctx, what)
	if err != nil {
		return 0, err
	}
	_, err = io.WriteString(os.Stdout, text)
	return exitOK, err
}

// confirm says that a command was taken, unless quiet (mux.c).
func (c *caller) confirm(text string) {
	if c.opts.LogLevel != sshopt.LogQuiet {
		fmt.Fprint(os.Stderr, text+"\r\n")
	}
}
