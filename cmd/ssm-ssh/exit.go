package main

import (
	"context"
	"errors"
	"fmt"

	"ssm-ssh/internal/report"
	"ssm-ssh/internal/selfexec"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

// Exit codes. A remote command's status is passed on unchanged; everything of ours is 255, as it
// is OpenSSH's: Ansible reads 255 as "unreachable".
const (
	exitOK    = 0
	exitError = 255
	// The admin verbs.
	exitFailed = 1
	exitUsage  = 2
)

// failure is an error as the user sees it: the text, and the status.
type failure struct {
	Text string
	Code int
	Raw  bool // said whatever the log level
	Quit bool // as sshproxy.TextError has it
}

// explain turns an error into what the user sees. Where OpenSSH has a text it is that; the others
// become one line "ssm-ssh: target: what failed: cause; next step".
func explain(err error, host string) failure {
	var usage *sshopt.Error
	var text *sshproxy.TextError
	var refused *sshproxy.RequestRefusedError
	var line *report.Error
	var signalled *signalError
	var child *selfexec.Failure
	switch {
	case errors.As(err, &signalled):
		return failure{Code: exitError}
	case errors.As(err, &child):
		return failure{Text: child.Text, Code: child.Code}
	case errors.As(err, &usage):
		return failure{Text: usage.Text, Code: usage.Code, Raw: usage.Raw}
	case errors.As(err, &text) && errors.As(text.Err, &line):
		return failure{Text: text.Text + "\nssm-ssh: " + line.Error(), Code: exitError, Quit: text.Quit}
	case errors.As(err, &text):
		return failure{Text: text.Text, Code: exitError, Quit: text.Quit}
	case errors.As(err, &refused):
		return failure{Text: refusalText(refused.Request), Code: exitError}
	case errors.As(err, &line):
		return failure{Text: "ssm-ssh: " + line.Error(), Code: exitError}
	case errors.Is(err, context.Canceled):
		return failure{Code: exitError}
	case errors.Is(err, errConnectTimeout):
		err = &report.Error{Op: "connect", Target: host, Err: err, Hint: "a longer -o ConnectTimeout may help"}
	default:
		err = &report.Error{Op: "connect", Target: host, Err: err}
	}
	return failure{Text: "ssm-ssh: " + err.Error(), Code: exitError}
}

// refusalText is what OpenSSH says when the server refuses what a session is to run (clientloop.c,
// client_status_confirm). Tools know the channel number; a session of its own has number 0.
func refusalText(request string) string {
	if request == "pty-req" {
		return "PTY allocation request failed on channel 0"
	}
	return fmt.Sprintf("%s request failed on channel 0", request)
}
