package sshproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
)

func TestEscapeReader(t *testing.T) {
	tests := []struct{ name, typed, sent, commands string }{
		{name: "none", typed: "ls -l\r", sent: "ls -l\r"},
		{name: "at the start", typed: "~.", commands: "."},
		{name: "after a line", typed: "ls\r~?x", sent: "ls\rx", commands: "?"},
		{name: "two in a row", typed: "~B~B", commands: "BB"},
		{name: "in mid line", typed: "ls ~.\r", sent: "ls ~.\r"},
		{name: "doubled", typed: "~~.", sent: "~."},
		{name: "unknown", typed: "~user\r", sent: "~user\r"},
		{name: "newline after it", typed: "~\r~.", sent: "~\r", commands: "."},
		{name: "background", typed: "ls\r~&more\r", sent: "ls\r\x04", commands: "&"},
		{name: "many unknown ones", typed: strings.Repeat("~x\r", 50), sent: strings.Repeat("~x\r", 50)},
	}
	for _, tt := range tests {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				var commands []byte
				f := &escapeFilter{char: '~'}
				f.act = func(c byte) bool {
					if !strings.ContainsRune(".?B&", rune(c)) {
						return false
					}
					commands = append(commands, c)
					f.over = c == '&'
					return true
				}
				typed := newTypeahead(wrap(strings.NewReader(tt.typed)), f)
				filled := make(chan struct{})
				go func() { defer close(filled); typed.fill() }()
				sent, err := io.ReadAll(typed)
				<-filled
				if err != nil || string(sent) != tt.sent || string(commands) != tt.commands {
					t.Errorf("sent %q, commands %q, %v", sent, commands, err)
				}
			})
		}
	}
}

// While nothing is sent, escapes are found as far as the limit, and there is an end to what is kept.
func TestTypeaheadOnAStuckConnection(t *testing.T) {
	feed, source := net.Pipe()
	ended := make(chan struct{})
	f := &escapeFilter{char: '~', act: func(byte) bool { close(ended); return true }}
	typed := newTypeahead(source, f)
	filled := make(chan struct{})
	go func() { defer close(filled); typed.fill() }()
	if _, err := feed.Write(append(make([]byte, typeaheadLimit-pumpBytes), "\r~."...)); err != nil {
		t.Fatal(err)
	}
	<-ended
	sent := make(chan int)
	go func() {
		n, _ := feed.Write(make([]byte, 4*pumpBytes))
		sent <- n
	}()
	p := make([]byte, 1)
	if _, err := typed.Read(p); err != nil {
		t.Error(err)
	}
	_ = typed.Close()
	if n := <-sent; n == 4*pumpBytes {
		t.Error("more is kept than the limit")
	}
	<-filled
	if _, err := typed.Read(p); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func FuzzEscapes(f *testing.F) {
	for _, s := range []string{"~.", "ls\r~?x", "~~.", "~\r~.", "a~.\n~B~&rest"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, typed []byte, cut int) {
		filter := func(pieces ...[]byte) (sent, commands []byte) {
			f := &escapeFilter{char: '~', act: func(c byte) bool { commands = append(commands, c); return c < 'a' }}
			for _, p := range pieces {
				sent = f.filter(sent, p)
			}
			return sent, commands
		}
		cut = min(max(cut, 0), len(typed))
		sent, commands := filter(typed)
		if in, asked := filter(typed[:cut], typed[cut:]); !bytes.Equal(in, sent) || !bytes.Equal(asked, commands) {
			t.Fatalf("%q in two pieces: %q %q, in one %q %q", typed, in, asked, sent, commands)
		}
		if len(sent) > len(typed) {
			t.Fatalf("%q has grown to %q", typed, sent)
		}
	})
}

func TestEscapesOfAStockClient(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	cmd := stockSSH(t, m.path, "-t", "x", "echo ready; stty -echo; while read line; do echo \"<$line>\"; done")
	term := onTerminal(t, cmd, 80, 24)
	shown := &transcript{from: term}
	shown.await(t, "ready")
	type step struct{ typed, shown string }
	steps := []step{
		{"~~tilde\r", "<~tilde>"},
		{"~Inside\r", "<~Inside>"}, // of ssh 10; for 9.2 it is none
		{"~?", "Supported escape sequences:"},
		{"~B", "~B\r\n"},
		{"~#", "~#\r\nThe following connections are open:\r\n  #1 client-session\r\n"},
	}
	steps = append(steps, step{"~R", "~R escape not available: keys are renewed as RekeyLimit has it\r\n"})
	for _, c := range []string{"C", "V", "v", "&"} {
		steps = append(steps, step{"~" + c, "~" + c + " escape not available to multiplexed sessions\r\n"})
	}
	steps = append(steps, step{"~\x1a", "~^Z escape not available to multiplexed sessions\r\n"}, step{"end\r", "<end>"},
		step{"~.", "Shared connection to x closed."})
	for _, s := range steps {
		if _, err := io.WriteString(term, s.typed); err != nil {
			t.Fatal(err)
		}
		shown.await(t, s.shown)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 255 {
		t.Errorf("ended with %d, want 255", got)
	}
}
