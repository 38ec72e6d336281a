package e2e

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

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
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Dir = append(r.env, "TERM=xterm"), r.dir
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
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		t.mu.Lock()
		shown := t.seen.String()
		t.mu.Unlock()
		if strings.Contains(shown, text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q on the terminal:\n%s", text, shown)
		}
	}
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
	term.cmd.Wait()
	if got := term.cmd.ProcessState.ExitCode(); got != 3 {
		t.Errorf("status %d, want 3", got)
	}
	r.wantSessions(1)
}
