package sshproxy

import (
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
)

// escapeReader takes a user's escapes out of a terminal's input: the escape character at a line's
// start and the character after it (clientloop.c, process_escapes).
type escapeReader struct {
	io.ReadCloser
	char byte
	// act does what a character asks for and reports whether it asked for anything; what it doesn't
	// know is sent, with the escape character before it.
	act func(command byte) bool

	midLine bool
	pending bool // the escape character was typed
}

// Read returns what is left of the input.
func (r *escapeReader) Read(p []byte) (int, error) {
	if len(p) < 2 {
		return 0, io.ErrShortBuffer // an escape that is none grows by the character held back
	}
	for {
		n, err := r.ReadCloser.Read(p[1:])
		kept := r.filter(p, p[1:1+n])
		if kept > 0 || err != nil {
			return kept, err
		}
	}
}

// filter copies what isn't an escape from typed to out, which begins one byte before it.
func (r *escapeReader) filter(out, typed []byte) int {
	n := 0
	for _, c := range typed {
		switch {
		case r.pending:
			r.pending = false
			if c != r.char && r.act(c) {
				continue // and the line is still at its start
			}
			if c != r.char {
				out[n] = r.char
				n++
			}
		case !r.midLine && c == r.char:
			r.pending = true
			continue
		}
		out[n] = c
		n++
		r.midLine = c != '\r' && c != '\n'
	}
	return n
}

// textEscapeHelp lists what a shared session can do (clientloop.c, esctable); %[1]c is the character.
const textEscapeHelp = "%[1]c?\r\nSupported escape sequences:\r\n" +
	" %[1]c.   - terminate session\r\n" +
	" %[1]cB   - send a BREAK to the remote system\r\n" +
	" %[1]c#   - list forwarded connections\r\n" +
	" %[1]c?   - this message\r\n" +
	" %[1]c%[1]c  - send the escape character by typing it twice\r\n" +
	"(Note that escapes are only recognized immediately after newline.)\r\n"

// breakRequest is RFC 4335's, for as long as the node likes.
const breakRequest = "break"

// escapes are those of a session that shares its connection; text goes to the client's stderr, open
// lists what else there is on the connection. x/crypto/ssh renews keys by itself and on nobody's
// request, so ~R is one of those that can't be had.
func (s *Session) escapes(char byte, stderr io.Writer, open func() []string) func(command byte) bool {
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(stderr, format, args...) // the user may have closed it
	}
	return func(command byte) bool {
		switch command {
		case '.':
			say("%c.\r\n", char)
			_ = s.Close() // fails only when it has ended
		case 'B':
			say("%cB\r\n", char)
			// Without waiting for an answer, which would change nothing.
			_, _ = s.ch.SendRequest(breakRequest, false, ssh.Marshal(struct{ Milliseconds uint32 }{1000}))
		case '#':
			say("%c#\r\nThe following connections are open:\r\n", char)
			for _, connection := range open() {
				say("  %s\r\n", printable(connection))
			}
		case '?':
			say(textEscapeHelp, char)
		case 'C', 'R', 'V', 'v', '&':
			say("%[1]c%[2]c escape not available to multiplexed sessions\r\n", char, command)
		case 'Z' & 0x1f:
			say("%c^Z escape not available to multiplexed sessions\r\n", char)
		default:
			return false
		}
		return true
	}
}
