package sshproxy

import (
	"errors"
	"fmt"
)

// TextError is a failure whose words other programs read: Text is OpenSSH's stderr text without its
// final newline, many lines included, separated by "\n".
type TextError struct {
	Text string
	Err  error // the cause, for the debug log; may be nil
	// Quit is for the user whatever the log level, and not for the log (clientloop.c, quit_message).
	Quit bool
}

// Error returns the text alone: it is complete as it stands.
func (e *TextError) Error() string { return e.Text }

// Unwrap returns the cause.
func (e *TextError) Unwrap() error { return e.Err }

// RequestRefusedError says that the node refused a request on a session channel.
type RequestRefusedError struct {
	Request string // "exec", "shell", "subsystem" or "pty-req"
}

// Error returns OpenSSH's words without the channel's number, which only some callers print.
func (e *RequestRefusedError) Error() string {
	if e.Request == "pty-req" {
		return "PTY allocation request failed"
	}
	return fmt.Sprintf("%s request failed", e.Request)
}

// ErrLinkDown says that a master's client has waited for ConnectTimeout while the link was lost.
var ErrLinkDown = errors.New("the link to the node is lost")

// errAuthentication says that one end could not prove to the other who it is.
var errAuthentication = errors.New("sshproxy: authentication failed")

// errUntrusted refuses forwards on a connection whose host key had changed.
var errUntrusted = &TextError{Text: "Port forwarding is disabled to avoid man-in-the-middle attacks."}

// ErrSessionState is returned for a call that the session's state does not allow, as a second Start.
var ErrSessionState = errors.New("sshproxy: session is not in a state for this call")
