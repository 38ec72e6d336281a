package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// endingTime is how long Run waits for sessions whose termination is under way.
	endingTime = 3 * time.Second
	settlePoll = 20 * time.Millisecond
	// interruptGrace is for a command that got the terminal's Ctrl-C itself; then it gets SIGTERM,
	// and as much later SIGKILL.
	interruptGrace = 5 * time.Second
	exitLeak       = 1
	exitOurs       = 255
)

// Stdio are the streams of Run and of its command.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run starts a lab and runs command with its environment. Without a command it prints the settings
// as shell exports and stays until ctx ends. At the end it prints what was counted and returns the
// command's exit status, or 1 when that is 0 and sessions are left alive. Sessions that are held by
// something that ends by itself, such as a control master, get settle to go away.
func Run(ctx context.Context, opts Options, settle time.Duration, stdio Stdio, command []string) (status int, err error) {
	l, err := Start(ctx, opts)
	if err != nil {
		return exitOurs, err
	}
	defer func() {
		if cerr := l.Close(); cerr != nil && err == nil {
			status, err = exitOurs, fmt.Errorf("lab: %w", cerr)
		}
	}()
	if len(command) == 0 {
		for _, kv := range l.Env() {
			fmt.Fprintln(stdio.Out, export(kv))
		}
		<-ctx.Done()
	} else if status, err = l.runCommand(ctx, stdio, command); err != nil {
		return exitOurs, err
	}
	counts := l.Settle(ctx, settle)
	fmt.Fprintln(stdio.Err, counts)
	if status == 0 && counts.LiveSessions > 0 {
		status = exitLeak
	}
	return status, nil
}

// Settle waits until no session is left, at most d; sessions that are ending get a little longer.
// It returns the counts of that moment.
func (l *Lab) Settle(ctx context.Context, d time.Duration) Counts {
	began := time.Now()
	for {
		c := l.Counts()
		waited := time.Since(began)
		if c.LiveSessions == 0 || (waited >= d && (c.EndingSessions == 0 || waited >= d+endingTime)) {
			return c
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			// Interrupted: nothing but what is ending is worth waiting for.
			d, ctx = 0, context.WithoutCancel(ctx)
		}
	}
}

func (l *Lab) runCommand(ctx context.Context, stdio Stdio, command []string) (int, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), l.Env()...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdio.In, stdio.Out, stdio.Err
	// Output that a child of the command still holds (a master in the background) is not waited for.
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return exitOurs, fmt.Errorf("lab: %w", err)
	}
	ended := make(chan error, 1) // capacity 1: one result, taken below in any case
	go func() { ended <- cmd.Wait() }()
	for _, signal := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		select {
		case err := <-ended:
			return exitStatus(err)
		case <-ctx.Done():
		}
		select {
		case err := <-ended:
			return exitStatus(err)
		case <-time.After(interruptGrace):
			cmd.Process.Signal(signal)
		}
	}
	return exitStatus(<-ended)
}

// exitStatus returns a command's status as a shell does: 128 + n for a signal.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return 0, nil
	case !errors.As(err, &exit):
		return exitOurs, fmt.Errorf("lab: %w", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// export quotes NAME=value for a shell.
func export(kv string) string {
	name, value, _ := strings.Cut(kv, "=")
	return "export " + name + "='" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// String is the summary that `ssm-ssh lab` prints.
func (c Counts) String() string {
	return fmt.Sprintf("lab: %d sessions started, %d resumed, %d left alive, %d workers alive\n"+
		"lab: up %d messages, %d bytes, %d repeated; down %d messages, %d bytes, %d repeated; %d connections",
		c.StartSession, c.ResumeSession, c.LiveSessions, c.LiveWorkers,
		c.MessagesUp, c.BytesUp, c.RepeatsUp, c.MessagesDown, c.BytesDown, c.RepeatsDown, c.Connects)
}
