// Command conformance runs the regression scripts of OpenSSH (Debian's package openssh-tests) with a
// program in the place of ssh; sshd, sftp, scp, ssh-keygen and ssh-agent are the installed ones.
//
//	conformance [-ssh PROGRAM] [-jobs N] [-keep DIR] [SCRIPT|SET...]
//
//	$ go run ./test/conformance -ssh bin/ssm-ssh quick
//	pass  banner                  4.1s
//	fail  percent                11.0s  localcommand=%C expect 35189bcc got
//	…
//	19 of 20 pass
//
// The status is 0 where each script passed or has a reason why it can't in the table in scripts.go, 1
// where one hasn't, and 2 where nothing could be run. The test of this package holds the table to it.
//
//	runner ── worker ── sh test-exec.sh DIR SCRIPT ── sshd, ssh, ssh-agent, …
//
// Each script works on a copy of the suite, and under a worker of its own: this program again, in a
// network namespace with nothing but loopback, since all scripts use the same ports. A worker adopts
// whatever its script leaves behind, and ends it by its number: nothing else is ever signalled.
// Where the system grants no namespace the scripts run one after the other.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	if isWorker() {
		os.Exit(work(os.Args[1:]))
	}
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		status = 2
	}
	os.Exit(status)
}

func run(args []string) (status int, err error) {
	var r runner
	flags := flag.NewFlagSet("conformance", flag.ExitOnError)
	flags.StringVar(&r.ssh, "ssh", "ssh", "the `program` in the place of ssh")
	flags.IntVar(&r.jobs, "jobs", defaultJobs(), "how many scripts run at a time")
	flags.StringVar(&r.keep, "keep", "", "a `folder` for the logs of scripts that don't pass")
	flags.Parse(args)
	chosen, err := choose(flags.Args())
	if err != nil {
		return 2, err
	}
	if r.ssh, err = program(r.ssh); err != nil {
		return 2, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	var passed, failed int
	err = r.run(ctx, chosen, func(v verdict) {
		fmt.Println(v)
		switch {
		case v.result == pass:
			passed++
		case v.fails == "":
			failed++
		}
	})
	if err != nil {
		return 2, err
	}
	fmt.Printf("%d of %d pass\n", passed, len(chosen))
	return min(failed, 1), nil
}

// program returns the absolute path of a program, as scripts change their folder. Links stay: the
// name that a program is called by may mean something to it.
func program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
