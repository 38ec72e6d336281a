package tty

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Limits of one run of an askpass program.
const (
	maxAnswer = 1024 // readpass.c reads no more
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

func askpassPolicy(getenv func(string) string) askpassUse {
	display := getenv("DISPLAY") != "" || getenv("WAYLAND_DISPLAY") != ""
	switch strings.ToLower(getenv("SSH_ASKPASS_REQUIRE")) {
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
	program := p.getenv("SSH_ASKPASS")
	if program == "" {
		program = defaultAskpass
	}
	cmd := exec.CommandContext(ctx, program, prompt)
	cmd.WaitDelay = askpassGrace
	cmd.Env = askpassEnv(os.Environ(), hint)
	cmd.Stderr = os.Stderr
	out := &limitedBuffer{}
	defer out.clear()
	cmd.Stdout = out
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return "", false, context.Cause(ctx)
	}
	if runErr != nil {
		return "", false, nil
	}
	line, _, _ := bytes.Cut(out.data, []byte("\n"))
	return string(bytes.TrimSuffix(line, []byte("\r"))), true, nil
}

// askpassEnv returns env with the hint as the only SSH_ASKPASS_PROMPT.
func askpassEnv(env []string, hint string) []string {
	const name = "SSH_ASKPASS_PROMPT="
	var out []string
	for _, v := range env {
		if !strings.HasPrefix(v, name) {
			out = append(out, v)
		}
	}
	if hint != "" {
		out = append(out, name+hint)
	}
	return out
}

// limitedBuffer keeps the first maxAnswer bytes and drops the rest, so that the writer never blocks.
// Its room is taken at once: an answer is never left behind by growing.
type limitedBuffer struct{ data []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.data == nil {
		b.data = make([]byte, 0, maxAnswer)
	}
	b.data = append(b.data, p[:min(len(p), maxAnswer-len(b.data))]...)
	return len(p), nil
}

func (b *limitedBuffer) clear() { clear(b.data) }
