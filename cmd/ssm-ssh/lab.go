package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"ssm-ssh/test/lab"
)

// labSettle is how long `ssm-ssh lab` waits for sessions that something still holds, such as a
// control master whose ControlPersist is not over.
const labSettle = time.Second

func labCommand() *cli.Command {
	return &cli.Command{
		Name:      "lab",
		Usage:     "try everything without an account: a stand-in for AWS on loopback, with nodes",
		ArgsUsage: "[-- command…]",
		Description: "With a command, runs it with the lab's settings in its environment. Without one, prints\n" +
			"them as shell exports and stays until Ctrl-C. At the end it prints what it counted, and\n" +
			"exits with 1 when a session is left alive. SSM_SSH_LAB_TARGETS holds the targets,\n" +
			"SSM_SSH_LAB_INVENTORY an Ansible inventory, SSM_SSH_LAB_USER the login, SSM_SSH_LAB_KEY and\n" +
			"SSM_SSH_LAB_KNOWN_HOSTS files for other clients, SSM_SSH_LAB_CONTROL a URL (GET /counts).",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "nodes", Value: 1, Usage: "number of managed nodes"},
			&cli.DurationFlag{Name: "rtt", Usage: "round trip time of every hop to the service"},
			&cli.DurationFlag{Name: "settle", Value: labSettle, Usage: "wait so long at the end for sessions that are still held"},
			&cli.StringFlag{Name: "dir", Usage: "folder for keys and logs, kept afterwards"},
		},
		Action: runLab,
	}
}

func runLab(c *cli.Context) error {
	opts := lab.Options{
		Nodes: c.Int("nodes"), RTT: c.Duration("rtt"), Dir: c.String("dir"),
		Logf: func(level int, format string, args ...any) {
			if level <= 0 {
				fmt.Fprintf(os.Stderr, format+"\n", args...)
			}
		},
	}
	if opts.Nodes < 1 || opts.RTT < 0 {
		return cli.Exit("lab: --nodes takes 1 or more, --rtt no less than 0", exitUsage)
	}
	stdio := lab.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	status, err := lab.Run(c.Context, opts, c.Duration("settle"), stdio, c.Args().Slice())
	if err != nil {
		return cli.Exit(err, exitFailed)
	}
	if status != exitOK {
		return cli.Exit("", status)
	}
	return nil
}
