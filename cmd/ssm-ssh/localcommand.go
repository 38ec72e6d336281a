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
	shell := userShell()
	c.log.Logf(3, "Executing %s -c \"%s\"", shell, c.opts.LocalCommand)
	cmd := exec.CommandContext(ctx, shell, "-c", c.opts.LocalCommand)
	if !c.opts.StdinNull {
		cmd.Stdin = os.Stdin
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var ended *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &ended) {
		c.log.Logf(-1, "Couldn't execute %s -c \"%s\": %s", shell, c.opts.LocalCommand, reason(err))
	}
}
