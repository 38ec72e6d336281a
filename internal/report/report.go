// Package report holds the one shape of error that reaches the user and the type of the logging
// function that packages are handed. It prints nothing itself: the program's exit path and its log
// sink do.
package report

import "strings"

// Logf writes one line of the log, without its newline. Level -1 is an error, 0 is a line at
// OpenSSH's INFO, 1 to 3 are debug1 to debug3, whose prefix the sink adds. A Logf is never handed
// payload, tokens or secrets.
type Logf func(level int, format string, args ...any)

// Discard drops every line.
func Discard(int, string, ...any) {}

// Error is a failure as the user reads it, one line: "target: what failed: cause; next step".
// Op says what failed in our words, Err the cause in its own, Hint what to do next; Target and
// Hint may be empty.
type Error struct {
	Op     string
	Target string
	Err    error
	Hint   string
}

// Error returns the line without the program's name, on one line whatever the cause holds.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Target != "" {
		b.WriteString(e.Target + ": ")
	}
	b.WriteString(e.Op)
	if e.Err != nil {
		b.WriteString(": " + oneLine(e.Err.Error()))
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// oneLine folds line ends and other control characters, so that a peer's text cannot start a line
// of its own on the user's terminal.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }), " ")
}
