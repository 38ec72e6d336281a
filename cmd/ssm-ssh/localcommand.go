package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
)

// runLocalCommand runs LocalCommand, once for a connection: when that is there and before its session is,
// with the call's own descriptors, so that its output comes first. How it ends doesn't matter
// (sshconnect.c, ssh_local_cmd).
func (c *caller) runLocalCommand(ctx context.Context) {
	if !c.opts.PermitLocalCommand || c.opts.LocalCommand == "" {
		return
	}
	in := os.Stdin
	if c.opts.StdinNull {
		in = nil
	}
	c.runLocally(ctx, c.opts.LocalCommand, in, os.Stdout)
}

// runLocally has the user's shell run a command.
func (c *caller) runLocally(ctx context.Context, command string, in, out *os.File) {
	shell := userShell()
	c.log.Logf(3, "Executing %s -c \"%s\"", shell, command)
	cmd := exec.CommandContext(ctx, shell, "-c", command)
	if in != nil {
		cmd.Stdin = in
	}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	var ended *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &ended) {
		c.log.Logf(-1, "Couldn't execute %s -c \"%s\": %s", shell, command, reason(err))
	}
}
