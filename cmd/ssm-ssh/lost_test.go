package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/report"
	"ssm-ssh/sshproxy"
	"ssm-ssh/ssmchannel"
)

func TestLostConnectionInOneLine(t *testing.T) {
	denied := &report.Error{Op: "resume session", Target: "n", Err: errors.New("AccessDeniedException: no"), Hint: "the caller needs ssm:ResumeSession"}
	gone := &report.Error{Op: "resume session", Target: "n", Err: errors.New("the session has ended")}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	tests := []struct {
		name   string
		resume time.Duration
		err    error
		want   string // empty: stays as it is
	}{
		{name: "idle", err: &ssmchannel.CloseError{Reason: "Session timed out: no input from the client within the idle session timeout."},
			want: "n: connection lost: Session timed out: no input from the client within the idle session timeout; the account's session preferences set this limit; SSMKeepAlive holds it off while a command runs"},
		{name: "age", err: &ssmchannel.CloseError{Reason: "Session timed out: the maximum session duration is reached."},
			want: "n: connection lost: Session timed out: the maximum session duration is reached; the account's session preferences set this limit"},
		{name: "any reason", err: &ssmchannel.CloseError{Reason: "document process failed unexpectedly"},
			want: "n: connection lost: document process failed unexpectedly"},
		{name: "silent node", err: fmt.Errorf("ssmchannel: %w: no acknowledgement from the agent for 15s", ssmchannel.ErrNodeSilent),
			want: "n: connection lost: node does not answer: no acknowledgement from the agent for 15s; is it down or rebooting?"},
		{name: "refused for ever", resume: time.Minute, err: fmt.Errorf("ssmchannel: %w: not resumed within 1m0s: %w", ssmchannel.ErrLost, denied),
			want: "n: connection lost: not resumed within 1m0s: resume session: AccessDeniedException: no; the caller needs ssm:ResumeSession"},
		{name: "session gone", resume: time.Minute, err: fmt.Errorf("ssmchannel: resuming: %w: %w", ssmchannel.ErrSessionGone, gone),
			want: "n: connection lost: the session has ended; the account's session preferences limit how long a session may be idle or last"},
		{name: "network", resume: time.Minute, err: fmt.Errorf("ssmchannel: %w: not resumed within 1m0s: %w", ssmchannel.ErrLost, reset),
			want: "n: connection lost: not resumed within 1m0s: connection reset by peer; SSMResume sets how long to go on trying"},
		{name: "no resume", err: fmt.Errorf("ssmchannel: %w: no resume: %w", ssmchannel.ErrLost, reset),
			want: "n: connection lost: the websocket was lost: connection reset by peer; SSMResume would have it resumed"},
		{name: "attempt that took too long", resume: time.Minute, err: fmt.Errorf("ssmchannel: %w: not resumed within 1m0s: %w", ssmchannel.ErrLost, os.ErrDeadlineExceeded),
			want: "n: connection lost: not resumed within 1m0s; SSMResume sets how long to go on trying"},
		{name: "no resume, without a reason", err: fmt.Errorf("ssmchannel: %w: no resume: failed to read frame header: %v", ssmchannel.ErrLost, io.EOF),
			want: "n: connection lost: the websocket was lost; SSMResume would have it resumed"},
		{name: "protocol", err: fmt.Errorf("ssmchannel: %w", ssmchannel.ErrProtocol), want: "n: connection lost: unreadable messages from the agent"},
		{name: "orderly end", err: io.EOF},
		{name: "our own close", err: &net.OpError{Op: "read", Net: "ssm", Err: net.ErrClosed}},
		{name: "deadline", err: &net.OpError{Op: "read", Net: "ssm", Err: os.ErrDeadlineExceeded}},
		{name: "a line already", err: denied},
		{name: "nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := lostError("n", tt.resume, tt.err)
			switch {
			case tt.want == "" && got != tt.err:
				t.Errorf("got %v, want it untouched", got)
			case tt.want != "" && (got.Error() != tt.want || !errors.As(got, new(*report.Error))):
				t.Errorf("got  %v\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLastWords(t *testing.T) {
	line := &report.Error{Op: "connection lost", Target: "n", Err: errors.New("gone")}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"cause below", &sshproxy.TextError{Text: "Connection to n closed by remote host.", Err: line}, "ssm-ssh: n: connection lost: gone"},
		{"OpenSSH's words", &sshproxy.TextError{Text: "Received disconnect from n: 2: bye\nDisconnected from n"}, "Received disconnect from n: 2: bye\r\nDisconnected from n"},
		{"link is down", sshproxy.ErrLinkDown,
			"ssm-ssh: n: connect: the way to the node is lost and being sought; a longer -o ConnectTimeout waits for it"},
		{"anything", errors.New("odd packet"), "ssm-ssh: n: connection lost: odd packet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := lastWords("n", tt.err); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
