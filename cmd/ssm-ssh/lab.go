package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"ssm-ssh/test/lab"
)

// labSettle is how long `ssm-ssh lab` waits for sessions that something still holds, such as a
// control master whose ControlPersist is not over.
const labSettle = time.Second

func labCommand() *ffcli.Command {
	flags := newFlags("lab")
	var opts lab.Options
	var settle time.Duration
	flags.IntVar(&opts.Nodes, "nodes", 1, "number of managed nodes")
	flags.DurationVar(&opts.RTT, "rtt", 0, "round trip time of every hop to the service")
	flags.DurationVar(&settle, "settle", labSettle, "wait so long at the end for sessions that are still held")
	flags.StringVar(&opts.Dir, "dir", "", "folder for keys and logs, kept afterwards")
	return &ffcli.Command{
		Name:       "lab",
		ShortUsage: "ssm-ssh lab [options] [-- command…]",
		ShortHelp:  "try everything without an account: a stand-in for AWS on loopback, with nodes",
		LongHelp: "With a command, runs it with the lab's settings in its environment. Without one, prints\n" +
			"them as shell exports and stays until Ctrl-C. At the end it prints what it counted, and\n" +
			"exits with 1 when a session is left alive. SSM_SSH_LAB_TARGETS holds the targets,\n" +
			"SSM_SSH_LAB_INVENTORY an Ansible inventory, SSM_SSH_LAB_USER the login, SSM_SSH_LAB_KEY and\n" +
			"SSM_SSH_LAB_KNOWN_HOSTS files for other clients, SSM_SSH_LAB_CONTROL a URL (GET /counts).",
		FlagSet: flags,
		Exec:    func(ctx context.Context, args []string) error { return runLab(ctx, opts, settle, args) },
	}
}

func runLab(ctx context.Context, opts lab.Options, settle time.Duration, command []string) error {
	if opts.Nodes < 1 || opts.RTT < 0 {
		return usageErrorf("lab: --nodes takes 1 or more, --rtt no less than 0")
	}
	opts.Logf = func(level int, format string, args ...any) {
		if level <= 0 {
			fmt.Fprintf(os.Stderr, format+"\n", args...)
		}
	}
	stdio := lab.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	status, err := lab.Run(ctx, opts, settle, stdio, command)
	if err != nil {
		return &verbError{status: exitFailed, err: err}
	}
	if status != exitOK {
		return &verbError{status: status}
	}
	return nil
}
