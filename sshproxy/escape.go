package sshproxy

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Escapes says what a user can ask of a session on a terminal by typing an escape character at a line's
// start (ssh(1), ESCAPE CHARACTERS).
type Escapes struct {
	Char byte
	// Connections names what is open on the connection.
	Connections func() []string
	// End ends the session, without waiting for a node that may have gone.
	End func()
	// Owner has the connection and the terminal for its session; nil for a session that shares them.
	Owner EscapeOwner
}

// EscapeOwner is the program around a session that has its connection for itself. Each call may use the
// terminal as it was before the session, and returns with the terminal as it found it.
type EscapeOwner interface {
	// CommandLine asks for one command and runs it.
	CommandLine()
	HasCommandLine() bool
	// Suspend stops the program until it is continued.
	Suspend()
	// Background gives the terminal back for good; nothing is read from it any more.
	Background()
	// ChangeLogLevel makes the log say more or less and returns what to tell the user of it.
	ChangeLogLevel(more bool) string
}

// escapeFilter takes a user's escapes out of a terminal's input: the escape character at a line's
// start and the character after it (clientloop.c, process_escapes).
type escapeFilter struct {
	char byte
	// act does what a character asks for and reports whether it asked for anything; what it doesn't
	// know is sent, with the escape character before it.
	act func(command byte) bool

	midLine bool
	pending bool // the escape character was typed
	over    bool // the user has done with it: what follows isn't for the session
}

// endOfTransmission ends a remote terminal's input, as ^D does.
const endOfTransmission = 4

// filter appends to out what is left of the input.
func (f *escapeFilter) filter(out, typed []byte) []byte {
	for _, c := range typed {
		switch {
		case f.pending:
			f.pending = false
			if c != f.char && f.act(c) {
				if f.over {
					return append(out, endOfTransmission)
				}
				continue // and the line is still at its start
			}
			if c != f.char {
				out = append(out, f.char)
			}
		case !f.midLine && c == f.char:
			f.pending = true
			continue
		}
		out = append(out, c)
		f.midLine = c != '\r' && c != '\n'
	}
	return out
}

// escapeHelp lists the escapes (clientloop.c, esc_txt): of those with two texts or none the ones that
// hold for a session that shares its connection, or for one that owns it.
var escapeHelp = []struct {
	command, shared, owned string
	commandLine            bool
}{
	{command: ".", shared: "terminate session", owned: "terminate connection (and any multiplexed sessions)"},
	{command: "B", shared: "send a BREAK to the remote system", owned: "send a BREAK to the remote system"},
	{command: "C", owned: "open a command line", commandLine: true},
	{command: "R", shared: "request rekey", owned: "request rekey"},
	{command: "V/v", owned: "decrease/increase verbosity (LogLevel)"},
	{command: "^Z", owned: "suspend ssh"},
	{command: "#", shared: "list forwarded connections", owned: "list forwarded connections"},
	{command: "&", owned: "background ssh (when waiting for connections to terminate)"},
	{command: "?", shared: "this message", owned: "this message"},
}

// help is the answer to ~? (clientloop.c, print_escape_help).
func (e *Escapes) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%c?\r\nSupported escape sequences:\r\n", e.Char)
	for _, line := range escapeHelp {
		text := line.shared
		if e.Owner != nil {
			text = line.owned
		}
		if text == "" || line.commandLine && !e.Owner.HasCommandLine() {
			continue
		}
		fmt.Fprintf(&b, " %c%-3s - %s\r\n", e.Char, line.command, text)
	}
	fmt.Fprintf(&b, " %[1]c%[1]c   - send the escape character by typing it twice\r\n"+
		"(Note that escapes are only recognized immediately after newline.)\r\n", e.Char)
	return b.String()
}

// breakRequest is RFC 4335's, for as long as the node likes.
const breakRequest = "break"

// filter returns what takes the escapes out of a session's input and does what they ask for; its texts
// go to stderr.
func (e *Escapes) filter(s *Session, stderr io.Writer) *escapeFilter {
	say := func(format string, args ...any) {
		if stderr != nil {
			_, _ = fmt.Fprintf(stderr, format, args...) // the user may have closed it
		}
	}
	f := &escapeFilter{char: e.Char}
	f.act = func(command byte) bool {
		switch command {
		case '.':
			say("%c.\r\n", e.Char)
			e.End()
		case 'B':
			say("%cB\r\n", e.Char)
			s.sendBreak()
		case '#':
			say("%c#\r\nThe following connections are open:\r\n", e.Char)
			for _, connection := range e.Connections() {
				say("  %s\r\n", printable(connection))
			}
		case '?':
			say("%s", e.help())
		case 'R':
			// OpenSSH renews the keys then. x/crypto/ssh does so by itself and on nobody's request.
			say("%cR escape not available: keys are renewed as RekeyLimit has it\r\n", e.Char)
		case 'C', 'V', 'v', '&', 'Z' & 0x1f:
			e.ownerOnly(command, say)
			f.over = command == '&' && e.Owner != nil
		default:
			return false
		}
		return true
	}
	return f
}

// ownerOnly does what concerns the connection or the program.
func (e *Escapes) ownerOnly(command byte, say func(format string, args ...any)) {
	name := string(rune(command))
	if command == 'Z'&0x1f {
		name = "^Z"
	}
	if e.Owner == nil {
		say("%c%s escape not available to multiplexed sessions\r\n", e.Char, name)
		return
	}
	switch command {
	case 'C':
		if !e.Owner.HasCommandLine() {
			say("commandline disabled\r\n")
			return
		}
		e.Owner.CommandLine()
	case '&':
		say("%c& [backgrounded]\r\n", e.Char)
		e.Owner.Background()
	case 'V', 'v':
		say("%c%s [%s]\r\n", e.Char, name, e.Owner.ChangeLogLevel(command == 'v'))
	default:
		say("%c^Z [suspend ssh]\r\n", e.Char)
		e.Owner.Suspend()
	}
}

// sendBreak asks for a break.
func (s *Session) sendBreak() {
	s.post(breakRequest, ssh.Marshal(struct{ Milliseconds uint32 }{1000}))
}

// post sends a request without waiting for an answer, which would change nothing, nor for the link to take
// it: what the user wants next may be an end.
func (s *Session) post(kind string, body []byte) {
	s.client.track(func() { _, _ = s.ch.SendRequest(kind, false, body) }) // fails only when the channel has ended
}
