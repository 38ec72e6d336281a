package tty

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of one run of an askpass program.
const (
	maxAnswer = 1023 // readpass.c reads no more
	// askpassGrace is how long a killed askpass program's children may hold its output open.
	askpassGrace = time.Second
)

// defaultAskpass is the path built into OpenSSH on the systems we run on.
const defaultAskpass = "/usr/bin/ssh-askpass"

// askpassUse says which way questions go (readpass.c, read_passphrase; ssh(1), SSH_ASKPASS_REQUIRE).
type askpassUse struct {
	allowed bool // may be asked at all
	first   bool // is asked even with a terminal
}

func (p *Prompter) askpassPolicy() askpassUse {
	display := p.getenv("DISPLAY") != "" || p.getenv("WAYLAND_DISPLAY") != ""
	switch strings.ToLower(p.getenv("SSH_ASKPASS_REQUIRE")) {
	case "force":
		return askpassUse{allowed: true, first: true}
	case "prefer":
		return askpassUse{allowed: display, first: display}
	case "never":
		return askpassUse{}
	}
	return askpassUse{allowed: display}
}

// askpass runs the program with exactly one argument, the prompt, and returns the first line of what
// it writes; ok is false when it failed. hint is "" or "confirm". The environment is passed on as it
// is: Ansible's program finds its password through it.
func (p *Prompter) askpass(ctx context.Context, prompt, hint string) (answer string, ok bool, err error) {
	program, set := p.lookup("SSH_ASKPASS")
	if !set {
		program = defaultAskpass
	}
	cmd := exec.CommandContext(ctx, program, prompt)
	cmd.WaitDelay = askpassGrace
	if hint != "" {
		cmd.Env = append(os.Environ(), "SSH_ASKPASS_PROMPT="+hint)
	}
	cmd.Stderr = os.Stderr
	out := newAnswerBuffer()
	defer out.clear()
	cmd.Stdout = out
	runErr := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", false, context.Cause(ctx)
	case cmd.ProcessState == nil:
		p.notRun(program, runErr)
		return "", false, nil
	case !cmd.ProcessState.Success():
		return "", false, nil
	}
	line := out.data
	if end := bytes.IndexAny(line, "\r\n"); end >= 0 {
		line = line[:end]
	}
	return string(line), true, nil
}

// notRun tells of a program that can't be run.
func (p *Prompter) notRun(program string, err error) {
	if p.AskpassFailed == nil {
		return
	}
	var errno unix.Errno
	if !errors.As(err, &errno) {
		errno = unix.ENOENT // not in the PATH, or no name
	}
	p.AskpassFailed(program, errno)
}

// answerBuffer keeps the first maxAnswer bytes and then wants no more: the program's next write fails, as under
// OpenSSH. Its room is taken at once, so that no part of an answer is left behind by growing.
type answerBuffer struct{ data []byte }

func newAnswerBuffer() *answerBuffer { return &answerBuffer{make([]byte, 0, maxAnswer)} }

func (b *answerBuffer) Write(p []byte) (int, error) {
	n := min(len(p), maxAnswer-len(b.data))
	b.data = append(b.data, p[:n]...)
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func (b *answerBuffer) clear() { clear(b.data) }
