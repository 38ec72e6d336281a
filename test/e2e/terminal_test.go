package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"ssm-ssh/internal/tty"
	"ssm-ssh/test/lab"
)

// terminal is a program under test on a pseudo-terminal of its own.
type terminal struct {
	*testing.T
	*os.File
	cmd  *exec.Cmd
	mu   sync.Mutex
	seen bytes.Buffer
	done chan struct{}
}

// onTerminal starts the program on a terminal of 31 by 77.
func (r *rig) onTerminal(args ...string) *terminal {
	r.Helper()
	return r.terminalOf(exec.Command(binary, args...))
}

// terminalOf starts a command on such a terminal.
func (r *rig) terminalOf(cmd *exec.Cmd) *terminal {
	r.Helper()
	cmd.Env, cmd.Dir = slices.Concat(r.env, []string{"TERM=xterm"}, cmd.Env), r.dir
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 31, Cols: 77})
	if err != nil {
		r.Fatal(err)
	}
	term := &terminal{T: r.T, cmd: cmd, File: f, done: make(chan struct{})}
	go func() {
		defer close(term.done)
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	r.Cleanup(func() { cmd.Process.Kill(); f.Close(); <-term.done })
	return term
}

// expect waits until the terminal has shown text.
func (t *terminal) expect(text string) {
	t.Helper()
	t.from(0).expect(text)
}

// shows tells whether the terminal has shown text.
func (t *terminal) shows(text string) bool { return t.from(0).shows(text) }

// shown is all that the terminal has shown.
func (t *terminal) shown() string { return t.from(0).shown() }

// mark is what the terminal shows from now on.
func (t *terminal) mark() view {
	t.mu.Lock()
	defer t.mu.Unlock()
	return view{t, t.seen.Len()}
}

func (t *terminal) from(start int) view { return view{t, start} }

// view is what a terminal has shown after a moment.
type view struct {
	*terminal
	start int
}

func (v view) expect(text string) {
	v.Helper()
	for deadline := time.Now().Add(awaitLimit); !v.shows(text); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			v.Fatalf("no %q on the terminal:\n%q", text, v.shown())
		}
	}
}

func (v view) shows(text string) bool { return strings.Contains(v.shown(), text) }

func (v view) shown() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen.String()[v.start:]
}

// wantStatus waits for the program's end.
func (t *terminal) wantStatus(status int) {
	t.Helper()
	t.cmd.Wait()
	if got := t.cmd.ProcessState.ExitCode(); got != status {
		t.Errorf("status %d, want %d", got, status)
	}
}

// isRaw tells whether what is typed is neither shown nor gathered to lines.
func (t *terminal) isRaw() bool {
	const (
		opcodeICANON = 51 // RFC 4254 section 8
		opcodeECHO   = 53
	)
	raw, err := t.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var modes map[uint8]uint32
	if err := raw.Control(func(fd uintptr) { modes = tty.Modes(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	return modes[opcodeICANON]+modes[opcodeECHO] == 0
}

func TestLoginOnATerminal(t *testing.T) {
	r := newRig(t, lab.Options{})
	term := r.onTerminal(r.target())
	io.WriteString(term, "stty size; echo term=$TERM; tty\n")
	term.expect("31 77")
	term.expect("term=xterm")
	term.expect("/dev/pts/")
	if err := pty.Setsize(term.File, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	io.WriteString(term, "sleep 0.2; stty size\n")
	term.expect("40 100")
	io.WriteString(term, "exit 3\n")
	term.expect("Shared connection to " + r.target() + " closed.")
	term.wantStatus(3)
	r.wantSessions(1)
}
