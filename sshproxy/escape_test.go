package sshproxy

import (
	"io"
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
		{name: "many unknown ones", typed: strings.Repeat("~x\r", 50), sent: strings.Repeat("~x\r", 50)},
	}
	for _, tt := range tests {
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				var commands []byte
				r := &escapeReader{ReadCloser: io.NopCloser(wrap(strings.NewReader(tt.typed))), char: '~', act: func(c byte) bool {
					if !strings.ContainsRune(".?B", rune(c)) {
						return false
					}
					commands = append(commands, c)
					return true
				}}
				sent, err := io.ReadAll(r)
				if err != nil || string(sent) != tt.sent || string(commands) != tt.commands {
					t.Errorf("sent %q, commands %q, %v", sent, commands, err)
				}
			})
		}
	}
}

func TestEscapesOfAStockClient(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	cmd := stockSSH(t, m.path, "-t", "x", "echo ready; stty -echo; while read line; do echo \"<$line>\"; done")
	term := onTerminal(t, cmd, 80, 24)
	shown := &transcript{from: term}
	shown.await(t, "ready")
	type step struct{ typed, shown string }
	for _, s := range []step{{"~~tilde\r", "<~tilde>"}, {"~?", "Supported escape sequences:"}, {"~C", "~C escape not available to multiplexed sessions"},
		{"~.", "Shared connection to x closed."}} {
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
