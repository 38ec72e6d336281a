package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"syscall"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
	"ssm-ssh/internal/tty"
	"ssm-ssh/sshproxy"
)

// caller is one call of the program in the ssh role.
type caller struct {
	opts    *sshopt.Options
	log     *logSink
	std     stdio
	signals *signals // nil: they simply end us
	share   sharing
	begun   func() error // told once that the session has begun; nil: nobody waits for that

	forwarded bool // the master that this call has made has opened this call's forwards
}

// runSSH is the ssh role: it returns what ssh would exit with.
func runSSH(ctx context.Context, name string, args []string, std stdio) int {
	opts, err := sshopt.Parse(args, environment(std))
	log, logErr := newLogSink(opts)
	if opts.Verbose > 0 {
		log.Logf(0, "%s", versionText())
	}
	for _, n := range opts.Notices {
		log.notice(n)
	}
	if err == nil {
		err = logErr
	}
	if err != nil {
		return log.say(explain(err, opts.Host))
	}
	c := &caller{opts: opts, log: log, std: std}
	if c.isBrief() {
		dropSIGPIPE()
		return c.run(ctx, name)
	}
	ctx, signals, stop := withSignals(ctx)
	defer stop()
	c.signals = signals
	return c.run(ctx, name)
}

// isBrief says whether the call is over in a moment, as a word to a master is. Then a signal may
// simply end it, as it ends ssh -O; to take the signals is 0.2 ms of the 3 that such a call has.
func (c *caller) isBrief() bool {
	switch c.opts.Action {
	case sshopt.ActionRun:
		return false
	case sshopt.ActionMuxCommand:
		return c.opts.MuxCommand != sshopt.MuxProxy
	}
	return true
}

// run does what the command line asks for, and says it when that fails.
func (c *caller) run(ctx context.Context, name string) int {
	status, err := c.act(ctx, name)
	if err == nil {
		return status
	}
	var signalled *signalError
	if errors.As(err, &signalled) && signalled.signal == syscall.SIGTERM && c.opts.SessionType == sshopt.SessionNone {
		return exitOK // ssh -N that is told to end has done its work
	}
	return c.log.say(explain(err, c.opts.Host))
}

// act does what the command line asks for.
func (c *caller) act(ctx context.Context, name string) (int, error) {
	switch c.opts.Action {
	case sshopt.ActionVersion:
		_, err := io.WriteString(os.Stderr, versionText()+"\n")
		return exitOK, err
	case sshopt.ActionQuery:
		_, err := io.WriteString(os.Stdout, c.opts.QueryText())
		return exitOK, err
	case sshopt.ActionDump:
		_, err := io.WriteString(os.Stdout, c.opts.Dump())
		return exitOK, err
	}
	var err error
	if c.opts.Action == sshopt.ActionRun && c.opts.ForkAfterAuthentication {
		return c.runInBackground(ctx, name)
	}
	c.share, err = sharingOf(name, c.opts)
	if errors.Is(err, errNoRuntimeDir) && c.opts.Action == sshopt.ActionRun {
		c.goUnshared(err)
	} else if err != nil {
		return 0, err
	}
	if c.opts.Action == sshopt.ActionMuxCommand {
		return c.command(ctx)
	}
	return c.session(ctx)
}

// session runs what was asked for on the first connection that can be had: through a living
// master, through one made for it, or on its own.
func (c *caller) session(ctx context.Context) (int, error) {
	if c.opts.StdinNull {
		if err := c.closeStdin(); err != nil {
			return 0, err
		}
	}
	status, err := c.throughMaster(ctx)
	if errors.Is(err, errUnshared) {
		return c.runOwn(ctx)
	}
	return status, err
}

// closeStdin puts /dev/null in stdin's place (-n), before any descriptor is handed on.
func (c *caller) closeStdin() error {
	fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	c.std.in = fd
	return err
}

// environment is what argv and the configuration files may refer to.
func environment(std stdio) sshopt.Environment {
	env := sshopt.Environment{Args0: os.Args[0], UID: os.Getuid(), StdinIsTerminal: tty.IsTerminal(std.in)}
	env.IsTarget = func(host string) bool { _, ok := target.Parse(host); return ok }
	env.StartSession, env.Resolve = understandProxyCommand, canonicalName
	// The home of the password database, not $HOME, is where ssh looks (ssh.c, main).
	if u, err := user.Current(); err == nil {
		env.Home, env.LocalUser = u.HomeDir, u.Username
	}
	env.OwnConfig, env.OwnConfigNamed = ownConfig(env.Home)
	if host, err := os.Hostname(); err == nil {
		env.Hostname = host
	}
	env.HomeOf = func(name string) (string, bool) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", false
		}
		return u.HomeDir, true
	}
	return env
}

// ownConfig is the program's own configuration file, read before the user's ssh_config. It has one
// place on every system.
func ownConfig(home string) (path string, named bool) {
	if path := os.Getenv("SSM_SSH_CONFIG"); path != "" {
		return path, true
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "ssm-ssh", "config"), false
}

// request is the wish as a session of one's own connection asks for it.
func (w wish) request(stdin io.Reader, stdout, stderr io.Writer) sshproxy.SessionRequest {
	return sshproxy.SessionRequest{
		Command: w.command, Subsystem: w.subsystem,
		TTY: w.tty, TTYRequired: w.ttyRequired, Term: w.term,
		Env: w.env, ForwardAgent: w.agent,
		Stdin: stdin, Stdout: stdout, Stderr: stderr,
	}
}
