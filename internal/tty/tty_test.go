package tty

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"ssm-ssh/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// openPTY returns both ends of a pty and the terminal's path.
func openPTY(t *testing.T) (user, terminal *os.File) {
	t.Helper()
	user, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close(); terminal.Close() })
	return user, terminal
}

func termiosOf(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), termiosGet)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

// environment is one for a Prompter; nil is empty.
type environment map[string]string

func (e environment) lookup(name string) (string, bool) {
	value, set := e[name]
	return value, set
}

func TestRawModeAndBack(t *testing.T) {
	_, terminal := openPTY(t)
	before := termiosOf(t, terminal)
	state, err := MakeRaw(int(terminal.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	raw := termiosOf(t, terminal)
	if raw.Lflag&(unix.ISIG|unix.ICANON|unix.ECHO|unix.IEXTEN) != 0 || raw.Iflag&(unix.ICRNL|unix.IXON) != 0 ||
		raw.Oflag&unix.OPOST != 0 || raw.Iflag&unix.IGNPAR == 0 || raw.Cc[unix.VMIN] != 1 {
		t.Errorf("not raw: %+v", raw)
	}
	for range 2 {
		if err := state.Restore(); err != nil {
			t.Fatal(err)
		}
	}
	if after := termiosOf(t, terminal); after != before {
		t.Errorf("got %+v, want %+v", after, before)
	}
	if err := (*State)(nil).Restore(); err != nil {
		t.Error(err)
	}
}

func TestSizeAndModes(t *testing.T) {
	_, terminal := openPTY(t)
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 31, Cols: 77, X: 770, Y: 310}); err != nil {
		t.Fatal(err)
	}
	if got, want := Size(int(terminal.Fd())), (Window{77, 31, 770, 310}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	modes := Modes(int(terminal.Fd()))
	// A fresh pty: ^C interrupts, ECHO and ICANON on, 38400 baud, second end of line switched off.
	for opcode, want := range map[uint8]uint32{1: 3, 53: 1, 51: 1, 7: 255, opInputSpeed: 38400, opOutputSpeed: 38400} {
		if got := modes[opcode]; got != want {
			t.Errorf("mode %d: got %d, want %d", opcode, got, want)
		}
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if fd := int(file.Fd()); IsTerminal(fd) || Size(fd) != (Window{}) || Modes(fd) != nil {
		t.Error("the null device passes for a terminal")
	}
	if !IsTerminal(int(terminal.Fd())) {
		t.Error("a terminal passes for something else")
	}
}

func TestQuestions(t *testing.T) {
	tests := []struct {
		name  string
		typed string
		echo  bool
		want  string
		seen  string // on the user's screen
	}{
		{name: "secret", typed: "s3cret\n", want: "s3cret", seen: "\rPass: \r\n"},
		{name: "question", typed: "yes\n", echo: true, want: "yes", seen: "\rPass: yes\r\n"},
		{name: "end of input", typed: "\x04", want: "", seen: "\rPass: \r\n"},
		{name: "too long", typed: strings.Repeat("x", 3000) + "\n", want: strings.Repeat("x", maxAnswer), seen: "\rPass: \r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			user, terminal := openPTY(t)
			before := termiosOf(t, terminal)
			p := &Prompter{LookupEnv: environment(nil).lookup, Path: terminal.Name()}
			ask := p.Secret
			if tt.echo {
				ask = p.Question
			}
			answers := make(chan string, 1)
			go func() {
				answer, err := ask(t.Context(), "Pass: ")
				if err != nil {
					t.Error(err)
				}
				answers <- answer
			}()
			screen := bufio.NewReader(user)
			seen := readUntil(t, screen, "Pass: ") // only then is echo off
			if _, err := user.WriteString(tt.typed); err != nil {
				t.Fatal(err)
			}
			if got := <-answers; got != tt.want {
				t.Errorf("got %.20q, want %.20q", got, tt.want)
			}
			seen += readUntil(t, screen, "\r\n")
			if seen != tt.seen {
				t.Errorf("screen %q, want %q", seen, tt.seen)
			}
			if after := termiosOf(t, terminal); after != before {
				t.Errorf("terminal is left as %+v", after)
			}
		})
	}
}

func readUntil(t *testing.T, r *bufio.Reader, end string) string {
	t.Helper()
	var seen []byte
	for !strings.HasSuffix(string(seen), end) {
		b, err := r.ReadByte()
		if err != nil {
			t.Fatalf("after %q: %v", seen, err)
		}
		seen = append(seen, b)
	}
	return string(seen)
}

func TestQuestionCutShort(t *testing.T) {
	tests := []struct {
		name string
		cut  func(cancel context.CancelCauseFunc) error
		want error
	}{
		{"end of context", func(cancel context.CancelCauseFunc) error { cancel(os.ErrDeadlineExceeded); return nil }, os.ErrDeadlineExceeded},
		{"signal", func(context.CancelCauseFunc) error { return unix.Kill(unix.Getpid(), unix.SIGINT) }, ErrInterrupted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			user, terminal := openPTY(t)
			before := termiosOf(t, terminal)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			p := &Prompter{LookupEnv: environment(nil).lookup, Path: terminal.Name()}
			result := make(chan error, 1)
			go func() {
				_, err := p.Secret(ctx, "Pass: ")
				result <- err
			}()
			readUntil(t, bufio.NewReader(user), "Pass: ")
			if err := tt.cut(cancel); err != nil {
				t.Fatal(err)
			}
			if err := <-result; !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if after := termiosOf(t, terminal); after != before {
				t.Errorf("terminal is left as %+v", after)
			}
		})
	}
}

func TestAskpass(t *testing.T) {
	dir := t.TempDir()
	script := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	echo := script("echo", `printf '%s|%s|%s\nsecond\n' "$#" "$1" "$SSH_ASKPASS_PROMPT"`)
	fails := script("fails", "echo no; exit 1")
	flood := script("flood", "head -c 100000 /dev/zero | tr '\\0' x")
	longest := script("longest", fmt.Sprintf("printf '%%0%dd' 0 | tr 0 x", maxAnswer))
	tests := []struct {
		name string
		env  environment
		tty  bool // there is a terminal, on which nobody answers: it is at its end
		want string
	}{
		{"no terminal, no display", environment{"SSH_ASKPASS": echo}, false, ""},
		{"no terminal, display", environment{"SSH_ASKPASS": echo, "DISPLAY": ":0"}, false, "1|P: |"},
		{"wayland", environment{"SSH_ASKPASS": echo, "WAYLAND_DISPLAY": "w"}, false, "1|P: |"},
		{"terminal goes first", environment{"SSH_ASKPASS": echo, "DISPLAY": ":0"}, true, ""},
		{"prefer with display", environment{"SSH_ASKPASS": echo, "DISPLAY": ":0", "SSH_ASKPASS_REQUIRE": "prefer"}, true, "1|P: |"},
		{"prefer without display", environment{"SSH_ASKPASS": echo, "SSH_ASKPASS_REQUIRE": "prefer"}, true, ""},
		{"force", environment{"SSH_ASKPASS": echo, "SSH_ASKPASS_REQUIRE": "FORCE"}, true, "1|P: |"},
		{"never", environment{"SSH_ASKPASS": echo, "DISPLAY": ":0", "SSH_ASKPASS_REQUIRE": "never"}, false, ""},
		{"program fails", environment{"SSH_ASKPASS": fails, "SSH_ASKPASS_REQUIRE": "force"}, false, ""},
		{"program missing", environment{"SSH_ASKPASS": dir + "/absent", "SSH_ASKPASS_REQUIRE": "force"}, false, ""},
		{"endless answer", environment{"SSH_ASKPASS": flood, "SSH_ASKPASS_REQUIRE": "force"}, false, ""},
		{"longest answer", environment{"SSH_ASKPASS": longest, "SSH_ASKPASS_REQUIRE": "force"}, false, strings.Repeat("x", maxAnswer)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &Prompter{LookupEnv: tt.env.lookup, Path: dir + "/no-terminal"}
			if tt.tty {
				p.Path = os.DevNull
			}
			if got, err := p.Question(t.Context(), "P: "); err != nil || got != tt.want {
				t.Errorf("got %.40q %v, want %.40q", got, err, tt.want)
			}
		})
	}
	yes := script("yes", `test "$SSH_ASKPASS_PROMPT" = confirm || exit 1`)
	p := &Prompter{LookupEnv: environment{"SSH_ASKPASS": yes, "DISPLAY": ":0"}.lookup}
	if ok, err := p.Confirm(t.Context(), "Allow? "); !ok || err != nil {
		t.Errorf("got %v %v", ok, err)
	}
}

func TestAskpassEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	fifo, program := filepath.Join(dir, "started"), filepath.Join(dir, "hangs")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho go >"+fifo+"\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := &Prompter{LookupEnv: environment{"SSH_ASKPASS": program, "SSH_ASKPASS_REQUIRE": "force"}.lookup}
	result := make(chan error, 1)
	go func() {
		_, err := p.Secret(ctx, "P: ")
		result <- err
	}()
	if _, err := os.ReadFile(fifo); err != nil { // returns once the program runs
		t.Fatal(err)
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
