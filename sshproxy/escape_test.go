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
	steps := []step{
		{"~~tilde\r", "<~tilde>"},
		{"~Inside\r", "<~Inside>"}, // of ssh 10; for 9.2 it is none
		{"~?", "Supported escape sequences:"},
		{"~B", "~B\r\n"},
		{"~#", "~#\r\nThe following connections are open:\r\n  #1 client-session\r\n"},
	}
	for _, c := range []string{"C", "R", "V", "v", "&"} {
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
