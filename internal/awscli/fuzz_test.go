package awscli

import (
	"os/exec"
	"strings"
	"testing"
)

// What is understood holds together, and no value has come from anywhere but the command's own bytes.
func FuzzParseStartSession(f *testing.F) {
	for _, tt := range understood {
		f.Add(tt.command)
	}
	for _, tt := range notUnderstood {
		f.Add(tt.command)
	}
	f.Fuzz(func(t *testing.T, command string) {
		s, err := ParseStartSession(command)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		if s.Target == "" || s.Document == "" || s.Port < 0 || s.Port > 65535 || strings.Contains(s.Document, "://") {
			t.Fatalf("%q gave %+v", command, s)
		}
		if strings.ContainsAny(command, "\n\r\x00") && !strings.ContainsAny(command, `'"`) {
			t.Fatalf("%q is more than a line", command)
		}
	})
}

// The words are those that a real shell makes of the command.
func FuzzSplitShell(f *testing.F) {
	for _, s := range []string{`a "b c" d`, `'x'\''y'`, `a\ b`, `"`, `a#b #c`, `\\`, `"\$\x\""`, "A=b c", `~`, `a=~`, `""`, `a''b`, "x=:~"} {
		f.Add(s)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		f.Fatalf("no shell to compare with: %v", err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := splitShell(s)
		if err != nil || strings.Contains(s, "\x00") {
			return
		}
		want := ""
		for _, w := range words {
			want += "<" + w.text + ">"
		}
		// set leaves the words alone; -- ends its options.
		got, err := exec.Command(sh, "-c", `set -- `+s+`; for w do printf '<%s>' "$w"; done`).Output()
		if err != nil || string(got) != want {
			t.Fatalf("%q: the shell has %q (%v), we %q", s, got, err, want)
		}
	})
}
