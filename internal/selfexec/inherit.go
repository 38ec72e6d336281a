package selfexec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrNotStarted says that this process wasn't made by Start.
var ErrNotStarted = errors.New("not started by " + programName + " itself")

// ErrCallerGone is the cause of a context that ended with the caller.
var ErrCallerGone = errors.New("the caller has gone")

// Parent is the child's side of the link to its caller.
type Parent struct {
	Files []*os.File // Spec.ExtraFiles; the receiver closes them

	options json.RawMessage
	ready   *os.File
	pipe    *os.File // options pipe; its end is the caller's
	once    sync.Once

	reporting atomic.Bool   // from now on the end of the pipe is our own doing
	orphaned  bool          // valid once watched is closed
	watched   chan struct{} // closed when the watch is over
}

// Inherit takes over what Start has left for this process, which must be called before anything
// else of weight: it replaces the environment by the caller's, and closes every descriptor that is
// neither one of stdin, stdout, stderr nor meant for us. It returns ErrNotStarted in a process that
// Start hasn't made.
func Inherit() (*Parent, error) {
	numbers, err := handles(os.Getenv(handlesVariable))
	if err != nil {
		return nil, err
	}
	ours := make([]*os.File, len(numbers))
	for i, fd := range numbers {
		unix.CloseOnExec(fd)
		if i < pipes {
			// Without this a Close would not end a Read. The pipes are shared with nobody else.
			if err := unix.SetNonblock(fd, true); err != nil {
				return nil, fmt.Errorf("descriptor %d is not ours: %w", fd, err)
			}
		}
		ours[i] = os.NewFile(uintptr(fd), handlesVariable)
	}
	closeStrays()
	nameProcess()
	p := &Parent{pipe: ours[0], ready: ours[1], Files: ours[pipes:], watched: make(chan struct{})}
	var m message
	if err := json.NewDecoder(p.pipe).Decode(&m); err != nil {
		return nil, fmt.Errorf("reading the options: %w", err)
	}
	p.options = m.Options
	replaceEnvironment(m.Env)
	go p.watch() // say waits for it
	return p, nil
}

// pipes is how many of the handles are pipes of this package: options and ready.
const pipes = 2

// handles reads the numbers of the descriptors that are ours.
func handles(value string) ([]int, error) {
	if value == "" {
		return nil, ErrNotStarted
	}
	var numbers []int
	for word := range strings.SplitSeq(value, ",") {
		n, err := strconv.ParseUint(word, 10, 16)
		if err != nil || n < firstExtra {
			return nil, fmt.Errorf("%s=%q: %w", handlesVariable, value, ErrNotStarted)
		}
		numbers = append(numbers, int(n))
	}
	if len(numbers) < pipes {
		return nil, fmt.Errorf("%s=%q: %w", handlesVariable, value, ErrNotStarted)
	}
	return numbers, nil
}

// closeStrays closes what the caller's own caller has left open, such as the pipe of a password
// tool: a process that stays in the background must not keep anybody waiting for its end. What was
// inherited has no close-on-exec flag; what Go has opened since has one.
func closeStrays() {
	for _, fd := range openDescriptors() {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); fd > 2 && err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd) //nolint:errcheck // nothing was written to it by us
		}
	}
}

// openDescriptors lists the open descriptors. Where the folder that shows them isn't mounted, the
// first numbers are tried one by one.
func openDescriptors() []int {
	entries, err := os.ReadDir(descriptorFolder)
	if err != nil {
		const triedNumbers = 1024 // the usual limit on open files
		numbers := make([]int, triedNumbers)
		for i := range numbers {
			numbers[i] = i
		}
		return numbers
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func replaceEnvironment(env []string) {
	os.Clearenv()
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok && name != "" {
			os.Setenv(name, value) //nolint:errcheck // fails for names without a value only
		}
	}
}

// watch waits for the end of the options pipe.
func (p *Parent) watch() {
	defer close(p.watched)
	_, err := io.Copy(io.Discard, p.pipe)
	p.orphaned = err == nil && !p.reporting.Load()
}

// Options decodes Spec.Options into v.
func (p *Parent) Options(v any) error { return json.Unmarshal(p.options, v) }

// Context returns a context that ends, with ErrCallerGone as its cause, when the caller dies before
// this process is ready. The cancel function releases it.
func (p *Parent) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-p.watched:
			if p.orphaned {
				cancel(ErrCallerGone)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		cancel(context.Canceled)
		<-done
	}
}

// Detach gives up everything of the caller's but the link to it: a session of its own without a
// terminal, the root as working folder, /dev/null for stdin, stdout and stderr. The signals are
// ignored from now on.
func (p *Parent) Detach(ignore ...os.Signal) error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("beginning a session: %w", err)
	}
	if len(ignore) > 0 { // none would mean all
		signal.Ignore(ignore...)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return fmt.Errorf("giving up descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// Ready tells the caller that all is well, and lets go of it. It returns ErrCallerGone when there is
// nobody left to tell.
func (p *Parent) Ready() error { return p.say(result{OK: true}) }

// Fail tells the caller what it shall say and with what code it shall exit, and lets go of it.
func (p *Parent) Fail(text string, code int) error { return p.say(result{Text: text, Code: code}) }

// say reports once; what comes later has no hearer.
func (p *Parent) say(r result) error {
	err := ErrCallerGone
	p.once.Do(func() { err = p.sayOnce(r) })
	return err
}

func (p *Parent) sayOnce(r result) error {
	defer p.ready.Close()
	p.reporting.Store(true)
	p.pipe.Close()
	<-p.watched
	if p.orphaned {
		return ErrCallerGone
	}
	r.Text = r.Text[:min(len(r.Text), reportLimit/8)] // JSON makes at most six bytes of one
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := p.ready.Write(body); err != nil {
		return fmt.Errorf("%w: %w", ErrCallerGone, err)
	}
	return nil
}
