package selfexec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// handlesVariable holds the numbers of the child's descriptors.
	handlesVariable = "SSM_SSH_SELFEXEC"
	// firstExtra is the number that os/exec gives to the first of Cmd.ExtraFiles.
	firstExtra = 3
	// reportLimit bounds what is read of a child's report; texts of OpenSSH have a few lines.
	reportLimit = 64 << 10
)

// programName is the child's argv[0], whatever the caller was called: the roles that are started
// this way belong to it.
const programName = "ssm-ssh"

// plainNames are the variables that the child is started with: those which Go and libc look at
// before main runs or which only a developer sets. None of them holds a secret.
var plainNames = []string{
	"HOME", "PATH", "USER", "LOGNAME", "TMPDIR", "LANG", "TZ", "GODEBUG", "GOTRACEBACK", "GORACE", "GOCOVERDIR",
}

// Spec says what to start.
type Spec struct {
	Args    []string // without the program's name
	Env     []string // what the child's environment is to become; nil is the caller's
	Options any      // handed over as JSON
	// Stdin, Stdout and Stderr are the child's until it detaches; nil is /dev/null.
	Stdin, Stdout, Stderr *os.File
	ExtraFiles            []*os.File // the child's Parent.Files
}

// Child is a started child.
type Child struct {
	cmd      *exec.Cmd
	lifeline *os.File // options pipe; held open until the child is ready
	ready    *os.File
	done     chan struct{}
	exit     error // of the child; valid once done is closed
}

// Failure is why a child didn't become ready, in its own words.
type Failure struct {
	Text string // for stderr, without the last newline; may be empty when all is said
	Code int    // exit code for the caller
}

func (f *Failure) Error() string { return f.Text }

// message is the value on the options pipe.
type message struct {
	Env     []string        `json:"env"`
	Options json.RawMessage `json:"options"`
}

// result is the value on the ready pipe.
type result struct {
	OK   bool   `json:"ok"`
	Text string `json:"text,omitempty"`
	Code int    `json:"code,omitempty"`
}

// Start starts the child and hands it its options; ctx bounds that. The child lives on when ctx ends
// later. One of WaitReady and Abandon must follow.
func Start(ctx context.Context, spec Spec) (*Child, error) {
	body, err := spec.message()
	if err != nil {
		return nil, err
	}
	optionsR, optionsW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer optionsR.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		optionsW.Close()
		return nil, err
	}
	defer readyW.Close()
	c := &Child{lifeline: optionsW, ready: readyR, done: make(chan struct{})}
	if c.cmd, err = spec.command(append([]*os.File{optionsR, readyW}, spec.ExtraFiles...)); err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		c.closePipes()
		return nil, err
	}
	go c.reap() // owned by c; Done is its end
	if err := c.send(ctx, body); err != nil {
		c.Abandon()
		return nil, err
	}
	return c, nil
}

func (s Spec) message() ([]byte, error) {
	options, err := json.Marshal(s.Options)
	if err != nil {
		return nil, err
	}
	env := s.Env
	if env == nil {
		env = os.Environ()
	}
	return json.Marshal(message{env, options})
}

// command prepares the child's process.
func (s Spec) command(extra []*os.File) (*exec.Cmd, error) {
	path, err := executable()
	if err != nil {
		return nil, err
	}
	numbers := make([]string, len(extra))
	for i := range extra {
		numbers[i] = strconv.Itoa(firstExtra + i)
	}
	cmd := &exec.Cmd{
		Path: path, Args: append([]string{programName}, s.Args...),
		Env: append(plainEnv(os.Environ()), handlesVariable+"="+strings.Join(numbers, ",")), ExtraFiles: extra,
	}
	// A nil *os.File in the interface would not be taken for nil.
	if s.Stdin != nil {
		cmd.Stdin = s.Stdin
	}
	if s.Stdout != nil {
		cmd.Stdout = s.Stdout
	}
	if s.Stderr != nil {
		cmd.Stderr = s.Stderr
	}
	return cmd, nil
}

// plainEnv picks the variables that may show in the child's /proc/PID/environ.
func plainEnv(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return !slices.Contains(plainNames, name)
	})
}

// reap waits for the child, so that it never stays behind as a zombie while the caller lives. A
// child that outlives the caller is init's to wait for.
func (c *Child) reap() {
	c.exit = c.cmd.Wait()
	close(c.done)
}

// send writes the options. The pipe stays open.
func (c *Child) send(ctx context.Context, body []byte) error {
	defer interruptible(ctx, c.lifeline.SetWriteDeadline)()
	if _, err := c.lifeline.Write(body); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("handing the options over: %w", err)
	}
	return nil
}

// interruptible makes the end of ctx end an operation on a pipe, by its deadline. The returned
// function stops that.
func interruptible(ctx context.Context, setDeadline func(time.Time) error) func() bool {
	return context.AfterFunc(ctx, func() {
		setDeadline(time.Unix(1, 0)) //nolint:errcheck // a closed pipe is at its end anyway
	})
}

// PID returns the child's process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Done is closed when the child has exited and is reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// WaitReady waits until the child says that it is ready. Otherwise the error is a *Failure with the
// child's words, or says how it ended without any. When ctx ends first the child is told to give
// up, and the error is the context's cause.
func (c *Child) WaitReady(ctx context.Context) error {
	defer c.closePipes()
	stop := interruptible(ctx, c.ready.SetReadDeadline)
	body, err := io.ReadAll(io.LimitReader(c.ready, reportLimit))
	stop()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("reading the child's report: %w", err)
	case len(body) == 0:
		return c.silentEnd(ctx)
	}
	var r result
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("the child's report makes no sense: %w", err)
	}
	if !r.OK {
		return &Failure{r.Text, r.Code}
	}
	return nil
}

// silentEnd says how a child ended that closed its pipe without a word.
func (c *Child) silentEnd(ctx context.Context) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c.exit == nil {
		return errors.New("the child ended before it was ready")
	}
	return fmt.Errorf("the child ended before it was ready: %w", c.exit)
}

// Abandon gives the child up that isn't waited for: unless it is ready already it sees that its
// caller has gone, and ends.
func (c *Child) Abandon() { c.closePipes() }

func (c *Child) closePipes() {
	c.lifeline.Close()
	c.ready.Close()
}
