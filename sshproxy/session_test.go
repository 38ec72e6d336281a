package sshproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestSessionRuns(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	big := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB: beyond one window
	tests := []struct {
		name           string
		req            SessionRequest
		stdout, stderr string
		status         int
		ok             bool
	}{
		{name: "output and status", req: SessionRequest{Command: "echo out; echo err >&2; exit 7"},
			stdout: "out\n", stderr: "err\n", status: 7, ok: true},
		{name: "stdin to EOF", req: SessionRequest{Command: "cat", Stdin: strings.NewReader("hello")}, stdout: "hello", ok: true},
		{name: "large both ways", req: SessionRequest{Command: "cat", Stdin: strings.NewReader(big)}, stdout: big, ok: true},
		{name: "death by signal", req: SessionRequest{Command: "kill -9 $$"}, ok: false},
		{name: "environment", req: SessionRequest{Command: `echo "$LAB_A|$OTHER"`, Env: []string{"LAB_A=x=y", "OTHER=z", "broken"}},
			stdout: "x=y|\n", ok: true},
		{name: "shell", req: SessionRequest{Stdin: strings.NewReader("echo from shell; exit 3\n")}, stdout: "from shell\n", status: 3, ok: true},
		{name: "terminal", req: SessionRequest{Command: "stty size; stty -a | grep -o 'speed [0-9]*'; echo $TERM", TTY: true, Term: "vt100",
			Window: Window{Columns: 77, Rows: 31}, Modes: ssh.TerminalModes{ssh.TTY_OP_OSPEED: 9600, ssh.TTY_OP_ISPEED: 9600}},
			stdout: "31 77\r\nspeed 9600\r\nvt100\r\n", ok: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, status, ok := run(t, c, tt.req)
			if stdout != tt.stdout || stderr != tt.stderr || status != tt.status || ok != tt.ok {
				t.Errorf("got %.80q %.80q %d %v, want %.80q %.80q %d %v", stdout, stderr, status, ok,
					tt.stdout, tt.stderr, tt.status, tt.ok)
			}
		})
	}
}

// failingWriter fails as a pipe without a reader does, and counts its Close.
type failingWriter struct{ closed chan struct{} }

func (w failingWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (w failingWriter) Close() error              { close(w.closed); return nil }

func TestStdoutGoneEndsTheWriterOnTheNode(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	s := openSession(t, c)
	out := failingWriter{make(chan struct{})}
	// yes dies by SIGPIPE once eow has closed its stdout; the shell goes on. sshd stops reading its
	// stderr too, so none is asked for.
	if err := s.Start(testContext(t), SessionRequest{Command: "yes; exit 4", Stdout: out}); err != nil {
		t.Fatal(err)
	}
	status, ok := s.Wait()
	<-out.closed
	if status != 4 || !ok {
		t.Errorf("status %d %v, want 4", status, ok)
	}
}

// closeRecorder notes when it was closed.
type closeRecorder struct {
	bytes.Buffer
	closed chan struct{}
}

func (w *closeRecorder) Close() error { close(w.closed); return nil }

func TestRemoteEOFClosesStdoutBeforeTheEnd(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	s := openSession(t, c)
	in, release := io.Pipe()
	out := &closeRecorder{closed: make(chan struct{})}
	if err := s.Start(testContext(t), SessionRequest{
		Command: "echo done; exec >&- 2>&-; read line; exit 5", Stdin: in, Stdout: out}); err != nil {
		t.Fatal(err)
	}
	<-out.closed // while the command still waits for its line
	if _, err := io.WriteString(release, "go\n"); err != nil {
		t.Fatal(err)
	}
	if status, ok := s.Wait(); status != 5 || !ok {
		t.Errorf("got %d %v, want 5", status, ok)
	}
	if _, err := io.WriteString(release, "late"); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("stdin is still open: %v", err)
	}
}

func TestAbandonLeavesTheCommandAlone(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	s := openSession(t, c)
	in, _ := io.Pipe() // never written
	blocked, out := io.Pipe()
	defer blocked.Close()
	mark := n.dir + "/lived-on"
	if err := s.Start(testContext(t), SessionRequest{
		Command: "echo more; cat; echo yes > " + mark + "; exit 6", Stdin: in, Stdout: out}); err != nil {
		t.Fatal(err)
	}
	if _, err := blocked.Read(make([]byte, 1)); err != nil { // the rest of the line stays blocked
		t.Fatal(err)
	}
	s.Abandon()
	if status, ok := s.Wait(); status != 6 || !ok {
		t.Errorf("got %d %v, want the command's own end", status, ok)
	}
	if got, _, _, _ := run(t, c, SessionRequest{Command: "cat " + mark}); got != "yes\n" {
		t.Errorf("the command did not live on: %q", got)
	}
}

func TestCloseEndsBlockedStreams(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	s := openSession(t, c)
	in, _ := io.Pipe()
	blocked, out := io.Pipe()
	defer blocked.Close()
	if err := s.Start(testContext(t), SessionRequest{Command: "yes", Stdin: in, Stdout: out}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Wait(); ok {
		t.Error("a closed session has a status")
	}
}

func TestSlowReaderStallsNobody(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	slow := openSession(t, c)
	blocked, out := io.Pipe()
	defer blocked.Close()
	if err := slow.Start(testContext(t), SessionRequest{Command: "yes; exit 0", Stdout: out}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, _, _, _ := run(t, c, SessionRequest{Command: "head -c 4000000 /dev/zero | wc -c"}); strings.TrimSpace(got) != "4000000" {
			t.Fatalf("got %q", got)
		}
	}
	if err := slow.Close(); err != nil {
		t.Fatal(err)
	}
	slow.Wait()
}

func TestRefusals(t *testing.T) {
	t.Run("subsystem", func(t *testing.T) {
		n := startNode(t, nodeOptions{})
		c := n.client(t)
		s := openSession(t, c)
		err := s.Start(testContext(t), SessionRequest{Command: "absent", Subsystem: true})
		var refused *RequestRefusedError
		if !errors.As(err, &refused) || err.Error() != "subsystem request failed" {
			t.Fatalf("got %v", err)
		}
		s.Wait()
	})
	t.Run("terminal", func(t *testing.T) {
		n := startNode(t, nodeOptions{lines: []string{"PermitTTY no"}})
		c := n.client(t)
		told := false
		out, _, status, ok := run(t, c, SessionRequest{Command: "tty; exit 2", TTY: true, OnTTYRefused: func() { told = true }})
		if out != "not a tty\n" || status != 2 || !ok || !told {
			t.Errorf("got %q %d %v, told %v", out, status, ok, told)
		}
		s := openSession(t, c)
		err := s.Start(testContext(t), SessionRequest{Command: "true", TTY: true, TTYRequired: true})
		if err == nil || err.Error() != "PTY allocation request failed" {
			t.Errorf("got %v", err)
		}
		s.Wait()
	})
	t.Run("channel", func(t *testing.T) {
		n := startNode(t, nodeOptions{lines: []string{"MaxSessions 0"}})
		c := n.client(t)
		_, err := c.OpenSession(testContext(t))
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) || refused.Reason != ssh.ConnectionFailed {
			t.Fatalf("got %v", err)
		}
	})
}

func TestOpenSessionGivesUpWithItsContext(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 12 { // more than MaxSessions: what is given up must be closed
		if s, err := c.OpenSession(ctx); err == nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s.Wait()
		}
		if got, _, _, _ := run(t, c, SessionRequest{Command: "echo alive"}); got != "alive\n" {
			t.Fatalf("got %q", got)
		}
	}
}

func TestConnectionLostUnderASession(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	_, _, _, ok := run(t, c, SessionRequest{Command: "kill -9 $PPID; sleep 5"})
	<-c.Done()
	// A socket that is closed with something unread in it resets the connection.
	want := []string{"Connection to node closed by remote host.", "Read from remote host node: Connection reset by peer"}
	if ok || c.Err() == nil || !slices.Contains(want, c.Err().Error()) {
		t.Errorf("got status %v, %v, want one of %q", ok, c.Err(), want)
	}
	if _, err := c.OpenSession(testContext(t)); err == nil {
		t.Error("a session opened on a dead connection")
	}
}
