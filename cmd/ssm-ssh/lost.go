package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"ssm-ssh/internal/report"
	"ssm-ssh/sshproxy"
	"ssm-ssh/ssmchannel"
)

// lostError makes the user's line of the end of a data channel. An end in order, by either side, and
// a deadline stay as they are.
func lostError(host string, resume time.Duration, err error) error {
	var closed *ssmchannel.CloseError
	var call *report.Error // of ResumeSession; without ErrLost or ErrSessionGone it is a line already
	isCall := errors.As(err, &call)
	line := &report.Error{Op: "connection lost", Target: host}
	switch {
	case errors.As(err, &closed):
		line.Hint, line.Err = closeCause(closed)
	case errors.Is(err, ssmchannel.ErrNodeSilent):
		line.Err, line.Hint = ownWords(err), "is it down or rebooting?"
	case errors.Is(err, ssmchannel.ErrSessionGone) && isCall:
		line.Err, line.Hint = ownWords(call.Err), "the account's session preferences limit how long a session may be idle or last"
	case errors.Is(err, ssmchannel.ErrLost) && isCall:
		line.Err, line.Hint = fmt.Errorf("not resumed within %v: %s: %w", resume, call.Op, call.Err), call.Hint
	case errors.Is(err, ssmchannel.ErrLost) && resume > 0:
		line.Err, line.Hint = lostCause(fmt.Sprintf("not resumed within %v", resume), err), "SSMResume sets how long to go on trying"
	case errors.Is(err, ssmchannel.ErrLost):
		line.Err, line.Hint = lostCause("the websocket was lost", err), "SSMResume would have it resumed"
	case isCall, err == nil, err == io.EOF, errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		return err
	default:
		line.Err = ownWords(err)
	}
	return line
}

// dialError makes the user's line for a data channel that did not open.
func dialError(ctx context.Context, host string, err error) error {
	var closed *ssmchannel.CloseError
	var dial *ssmchannel.DialError
	var call *report.Error // of KMS, for the session's data key: a line already
	line := &report.Error{Op: "open data channel", Target: host}
	switch {
	case ctx.Err() != nil:
		line.Err, line.Hint = context.Cause(ctx), "is the node's agent healthy, and the way to the service open? a longer -o ConnectTimeout waits on"
	case errors.As(err, &closed):
		line.Hint, line.Err = closeCause(closed)
	case errors.As(err, &dial) && dial.StatusCode != 0:
		line.Err, line.Hint = ownWords(err), "may the caller use ssmmessages:OpenDataChannel? does a proxy answer for the service?"
	case errors.As(err, &dial):
		line.Err, line.Hint = networkCause(err), "is the way to the ssmmessages endpoint open? HTTPS_PROXY names a proxy"
	case errors.As(err, &call):
		return call
	default:
		line.Err, line.Hint = ownWords(err), "is the node's agent healthy?"
	}
	return line
}

// closeCause is the reason that the service gave for the end of a session. Where it is the account's
// limit, the hint says which setting rules it.
func closeCause(closed *ssmchannel.CloseError) (hint string, cause error) {
	reason := strings.ToLower(closed.Reason)
	cause = errors.New(strings.TrimRight(closed.Reason, ". \n"))
	switch {
	case reason == "":
		return "", errors.New("the session was ended by the service")
	case strings.Contains(reason, "idle"):
		return "the account's session preferences set this limit; SSMKeepAlive holds it off while a command runs", cause
	case strings.Contains(reason, "duration"):
		return "the account's session preferences set this limit", cause
	}
	return "", cause
}

// words is an error under another text.
type words struct {
	text string
	error
}

func (w words) Error() string { return w.text }
func (w words) Unwrap() error { return w.error }

// lostCause says what happened, and why where the system has a word for that.
func lostCause(what string, err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		what += ": " + errno.Error()
	}
	return words{what, err}
}

// networkCause is the system's word for what broke a connection, where there is one: the wrapping
// of the libraries in between says nothing to a user.
func networkCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return words{errno.Error(), err}
	}
	return ownWords(err)
}

// ownWords leaves out of an error's text what the line says already.
func ownWords(err error) error {
	text := strings.TrimPrefix(err.Error(), "ssmchannel: ")
	return words{strings.TrimPrefix(text, ssmchannel.ErrLost.Error()+": "), err}
}

// lastWords is what a master's client reads when the connection is lost below its session.
func lastWords(host string, err error) string {
	var line *report.Error
	var text *sshproxy.TextError
	switch {
	case errors.Is(err, sshproxy.ErrLinkDown):
		line = &report.Error{Op: "connect", Target: host, Err: errors.New("the way to the node is lost and being sought"),
			Hint: "a longer -o ConnectTimeout waits for it"}
	case errors.As(err, &line):
	case errors.As(err, &text):
		return strings.ReplaceAll(text.Text, "\n", "\r\n")
	default:
		line = &report.Error{Op: "connection lost", Target: host, Err: err}
	}
	return "ssm-ssh: " + line.Error()
}
