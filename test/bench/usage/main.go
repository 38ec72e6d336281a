// Command usage runs a program and writes to descriptor 3 what it took: nanoseconds from before the
// start to after the end, the maximum resident set as wait4(2) counts it, the exit status, and the
// nanoseconds of processor time, the kernel's included. It links next to nothing: see package bench.
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// usageError is the exit status when nothing was measured.
const usageError = 2

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "usage:", err)
		os.Exit(usageError)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return os.ErrInvalid
	}
	began := time.Now()
	process, err := os.StartProcess(args[0], args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	state, err := process.Wait()
	took := time.Since(began)
	if err != nil {
		return err
	}
	rusage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return fmt.Errorf("no resource usage from %s", args[0])
	}
	const report = 3
	_, err = fmt.Fprintln(os.NewFile(report, "report"), took.Nanoseconds(), rusage.Maxrss, state.ExitCode(),
		(state.UserTime() + state.SystemTime()).Nanoseconds())
	return err
}
