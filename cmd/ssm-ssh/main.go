// Command ssm-ssh is an ssh client for nodes that are reached through AWS Systems Manager: one SSM
// session per host, one SSH connection in it, every further call a channel of that connection.
//
// The packages meet here and nowhere else. The way of one command, read top to bottom:
//
//	multicall.go    argv → role
//	ssh.go          options → mux client of a living master, or a new master, or a connection of its own
//	mux.go          through a master: find one (dial.go) or make one, and start over when it has gone
//	ride.go         the session through it; serve.go: our own connection as a master; command.go: -O
//	own.go          the session on a connection of its own; terminal.go: raw mode; commandline.go: its escapes
//	master.go       the master process: connect, listen, serve, linger, leave
//	connect.go      target → SSM session → data channel → SSH client
//	exit.go         error → stderr line and exit code
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args, stdio{in: 0, out: 1, err: 2}))
}

// stdio is the caller's three descriptors. They are numbers, not *os.File: asking a File for its
// number may change the descriptor's blocking mode, which is shared with whoever gave it to us.
type stdio struct {
	in, out, err int
}
