package main

import (
	"os"
	"path"
	"strings"

	"ssm-ssh/internal/sshopt"
)

// wish is the session that a command line asks for, whichever connection carries it.
type wish struct {
	command     string
	subsystem   bool
	tty         bool
	ttyRequired bool // -t on a connection of one's own: a refused pty is the end (openssh clientloop.c)
	term        string
	env         []string
	agent       bool
}

// wishOf reads the session out of the options (ssh(1), -t -T -n -s; contract in ssh_config(5)
// RequestTTY, SessionType, SendEnv, SetEnv).
func wishOf(opts *sshopt.Options) wish {
	w := wish{
		command:   opts.Command,
		subsystem: opts.SessionType == sshopt.SessionSubsystem,
		tty:       opts.TTY,
		env:       append(matchingEnv(opts.SendEnv, os.Environ()), opts.SetEnv...),
		agent:     opts.ForwardAgent,
	}
	w.ttyRequired = w.tty && opts.RequestTTY != sshopt.RequestTTYAuto
	if w.tty {
		w.term = termOf(opts.SetEnv)
	}
	return w
}

// termOf is the TERM of a pty request: SetEnv's first, then the caller's.
func termOf(setEnv []string) string {
	for _, pair := range setEnv {
		if value, ok := strings.CutPrefix(pair, "TERM="); ok {
			return value
		}
	}
	return os.Getenv("TERM")
}

// matchingEnv returns the variables whose names a pattern of SendEnv allows.
func matchingEnv(patterns, environ []string) []string {
	var env []string
	for _, pair := range environ {
		name, _, _ := strings.Cut(pair, "=")
		if matchesAny(patterns, name) {
			env = append(env, pair)
		}
	}
	return env
}

// matchesAny knows the wildcards of ssh_config(5) PATTERNS, * and ?, which path.Match has too;
// its brackets and backslashes don't occur in variables' names.
func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, err := path.Match(p, name); ok && err == nil {
			return true
		}
	}
	return false
}
