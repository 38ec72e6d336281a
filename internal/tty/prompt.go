package tty

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrInterrupted says that a signal came in mid-question. The terminal is restored, and the signal
// has reached the program's own handlers, if any, as well.
var ErrInterrupted = errors.New("interrupted")

// Prompter asks the user: on the controlling terminal, never on stdin, stdout or stderr, or through
// an askpass program. Where nobody can be asked the answer is "", as OpenSSH has it. One question is
// put at a time. The zero value is ready for use.
type Prompter struct {
	LookupEnv func(string) (string, bool) // nil means os.LookupEnv
	Path      string                      // the terminal; "" means /dev/tty

	// AskpassFailed is told of an askpass program that can't be run; nil is nobody.
	AskpassFailed func(program string, err error)

	mu sync.Mutex
}

// Secret asks without echo. An error is the end of ctx or ErrInterrupted.
func (p *Prompter) Secret(ctx context.Context, prompt string) (string, error) {
	return p.ask(ctx, prompt, false)
}

// Question asks with echo. Its errors are Secret's.
func (p *Prompter) Question(ctx context.Context, prompt string) (string, error) {
	return p.ask(ctx, prompt, true)
}

// Confirm asks the askpass program for leave, as for each use of a shared connection (readpass.c,
// ask_permission): yes is an exit status of 0 with "yes" or nothing. Without one the answer is no.
func (p *Prompter) Confirm(ctx context.Context, prompt string) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.askpassPolicy().allowed {
		return false, nil
	}
	answer, ok, err := p.askpass(ctx, prompt, "confirm")
	return ok && (answer == "" || strings.EqualFold(answer, "yes")), err
}

func (p *Prompter) lookup(name string) (string, bool) {
	if p.LookupEnv != nil {
		return p.LookupEnv(name)
	}
	return os.LookupEnv(name)
}

func (p *Prompter) getenv(name string) string {
	value, _ := p.lookup(name)
	return value
}

// ask chooses between terminal and askpass (readpass.c, read_passphrase).
func (p *Prompter) ask(ctx context.Context, prompt string, echo bool) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	use := p.askpassPolicy()
	if !use.first {
		path := p.Path
		if path == "" {
			path = "/dev/tty"
		}
		// Blocking, and a description of our own: no flag of the user's terminal changes.
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd)
			return askTerminal(ctx, fd, prompt, echo)
		}
	}
	if !use.allowed {
		return "", nil
	}
	answer, _, err := p.askpass(ctx, prompt, "")
	return answer, err
}

// askTerminal puts the question until it is answered, again after each time the user has stopped and
// continued the program.
func askTerminal(ctx context.Context, fd int, prompt string, echo bool) (string, error) {
	for {
		answer, caught, err := questionOnce(ctx, fd, prompt, echo)
		switch {
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case caught == unix.SIGTSTP:
			if err := unix.Kill(unix.Getpid(), unix.SIGSTOP); err != nil {
				return "", nil
			}
		case caught != nil:
			return "", ErrInterrupted
		case err != nil:
			return "", nil // the terminal has gone: nobody answers
		default:
			return answer, nil
		}
	}
}

// heeded returns the signals that would end or stop the program in mid-question (readpassphrase.c).
// Those that its caller has ignored, as nohup does, stay ignored.
func heeded() []os.Signal {
	var out []os.Signal
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM, unix.SIGQUIT, unix.SIGTSTP} {
		if !signal.Ignored(s) {
			out = append(out, s)
		}
	}
	return out
}

// questionOnce puts the question once. The end of ctx and signals cut it short; the terminal is
// restored in any case.
func questionOnce(ctx context.Context, fd int, prompt string, echo bool) (answer string, caught os.Signal, err error) {
	w, err := newWaker()
	if err != nil {
		return "", nil, err
	}
	defer w.close()
	signals := make(chan os.Signal, 1) // capacity 1: the first decides
	if heed := heeded(); len(heed) > 0 {
		signal.Notify(signals, heed...)
		defer signal.Stop(signals)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case caught = <-signals:
			w.wake()
		case <-ctx.Done():
			w.wake()
		case <-stop:
		}
	})
	answer, err = readAnswer(fd, w.read, prompt, echo)
	close(stop)
	wg.Wait()
	return answer, caught, err
}

// readAnswer writes the prompt and reads the answer with echo as wanted, until wake is readable.
func readAnswer(fd, wake int, prompt string, echo bool) (string, error) {
	if !echo {
		restore, err := echoOff(fd)
		if err != nil {
			return "", err
		}
		defer restore()
	}
	// OpenSSH begins with a return: a prompt in mid-line would be missed by those who look for it.
	if err := writeAll(fd, "\r"+prompt); err != nil {
		return "", err
	}
	line := make([]byte, 0, maxAnswer)
	defer func() { clear(line[:cap(line)]) }()
	line, err := readLine(fd, wake, line)
	if !echo {
		_ = writeAll(fd, "\n") // the user's own was not echoed
	}
	return string(line), err
}

// echoOff switches echo off and drops what was typed before the question.
func echoOff(fd int) (restore func(), err error) {
	saved, err := unix.IoctlGetTermios(fd, termiosGet)
	if err != nil {
		return nil, err
	}
	quiet := *saved
	quiet.Lflag &^= unix.ECHO | unix.ECHONL
	if err := setTermios(fd, termiosSetFlush, &quiet); err != nil {
		return nil, err
	}
	return func() { _ = setTermios(fd, termiosSetFlush, saved) }, nil
}

// readLine appends to line up to its capacity, until a line's end, the end of input, or wake.
func readLine(fd, wake int, line []byte) ([]byte, error) {
	for {
		if err := waitReadable(fd, wake); err != nil {
			return line, err
		}
		var one [1]byte
		n, err := unix.Read(fd, one[:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return line, err
		case n == 0 || one[0] == '\n' || one[0] == '\r':
			return line, nil
		case len(line) < cap(line):
			line = append(line, one[0])
		}
	}
}

// errWoken says that the wait was ended from outside.
var errWoken = errors.New("woken")

// waitReadable waits with select(2): poll(2) does not know terminals on every macOS.
func waitReadable(fd, wake int) error {
	if max(fd, wake) >= unix.FD_SETSIZE {
		return unix.EMFILE
	}
	for {
		var set unix.FdSet
		set.Set(fd)
		set.Set(wake)
		_, err := unix.Select(max(fd, wake)+1, &set, nil, nil, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case set.IsSet(wake):
			return errWoken
		}
		return nil
	}
}

// waker ends a waitReadable from another goroutine.
type waker struct{ read, write int }

func newWaker() (*waker, error) {
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return &waker{read: fds[0], write: fds[1]}, nil
}

// wake is called at most once, so the pipe always has room.
func (w *waker) wake() { _, _ = unix.Write(w.write, []byte{0}) }

func (w *waker) close() {
	unix.Close(w.read)
	unix.Close(w.write)
}

func writeAll(fd int, s string) error {
	for b := []byte(s); len(b) > 0; {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
