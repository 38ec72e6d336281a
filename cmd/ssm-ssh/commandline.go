package main

import (
	"context"
	"os"
	"strings"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/tty"
	"ssm-ssh/sshproxy"
)

// ownEscapes is what a session on a connection of this call's own can ask of the program.
type ownEscapes struct {
	*caller
	ctx       context.Context
	term      *terminal
	forwarder *sshproxy.Forwarder
}

var _ sshproxy.EscapeOwner = (*ownEscapes)(nil)

// HasCommandLine is EnableEscapeCommandline.
func (e *ownEscapes) HasCommandLine() bool { return e.opts.EnableEscapeCommandline }

// Suspend is ~^Z.
func (e *ownEscapes) Suspend() { e.term.suspend() }

// Background is ~&: the connection goes on for those forwarded through it. A Go program can't fork as
// ssh does, so it stops, which gives the shell its terminal back, and the user lets it go on.
func (e *ownEscapes) Background() {
	e.term.leave()
	e.forwarder.StopListening()
	if !orphaned() {
		e.log.Logf(0, "ssm-ssh: stopped; bg has it go on in the background")
	}
	stopSelf()
}

// ChangeLogLevel is ~v and ~V.
func (e *ownEscapes) ChangeLogLevel(more bool) string {
	if e.opts.LogFile != "" || e.opts.Syslog {
		return "Logging to syslog"
	}
	return "LogLevel " + e.log.change(more).String()
}

// CommandLine is ~C.
func (e *ownEscapes) CommandLine() {
	e.signals.holdInterrupt(func() {
		e.term.lend(func() {
			// An error is the end of the session or the user's ^C.
			if line, err := new(tty.Prompter).Question(e.ctx, "\r\nssh> "); err == nil {
				e.execute(line)
			}
		})
	})
}

const commandHelp = `Commands:
      -L[bind_address:]port:host:hostport    Request local forward
      -R[bind_address:]port:host:hostport    Request remote forward
      -D[bind_address:]port                  Request dynamic forward
      -KL[bind_address:]port                 Cancel local forward
      -KR[bind_address:]port                 Cancel remote forward
      -KD[bind_address:]port                 Cancel dynamic forward`

const commandHelpLocal = `
      !args                                  Execute local command`

// execute does what one line asks for (clientloop.c, process_cmdline).
func (e *ownEscapes) execute(line string) {
	line = strings.TrimPrefix(strings.TrimLeft(line, " \t\n\v\f\r"), "-")
	switch {
	case line == "":
	case strings.ContainsRune("hH?", rune(line[0])):
		help := commandHelp
		if e.opts.PermitLocalCommand {
			help += commandHelpLocal
		}
		e.log.lines(0, help)
	case line[0] == '!' && e.opts.PermitLocalCommand:
		e.runOnTerminal(line[1:])
	default:
		e.log.Logf(0, "%s", e.forward(line))
	}
}

// forward begins or ends a forward and returns what to say of it.
func (e *ownEscapes) forward(line string) string {
	line, cancel := strings.CutPrefix(line, "K")
	var kind sshproxy.ForwardKind
	switch {
	case strings.HasPrefix(line, "L"):
		kind = sshproxy.ForwardLocal
	case strings.HasPrefix(line, "R"):
		kind = sshproxy.ForwardRemote
	case strings.HasPrefix(line, "D"):
		kind = sshproxy.ForwardDynamic
	default:
		return "Invalid command."
	}
	spec, remote := strings.TrimLeft(line[1:], " \t\n\v\f\r"), kind == sshproxy.ForwardRemote
	parse := func(dynamic, remote bool) (sshproxy.Forward, bool) {
		f, ok := sshopt.ParseForward(spec, environment(e.std), dynamic, remote)
		return forwardOf(kind, f), ok
	}
	if cancel {
		fwd, ok := parse(true, false)
		switch {
		case !ok:
			return "Bad forwarding close specification."
		case e.forwarder.CancelListening(kind, fwd.Listen) != nil:
			return "Unknown port forwarding."
		}
		return "Canceled forwarding."
	}
	fwd, ok := parse(kind == sshproxy.ForwardDynamic, remote)
	if !ok && remote {
		fwd, ok = parse(true, true)
	}
	switch {
	case !ok && remote:
		return "Bad remote forwarding specification."
	case !ok:
		return "Bad local forwarding specification."
	}
	if _, err := e.forwarder.Open(fwd); err != nil {
		if !remote {
			e.log.lines(-1, err.Error())
		}
		return "Port forwarding failed."
	}
	return "Forwarding port."
}

// runOnTerminal runs a command of the user's. Our own stdout isn't there any more (see openStreams).
func (e *ownEscapes) runOnTerminal(command string) {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		e.log.Logf(-1, "/dev/tty: %s", reason(err))
		return
	}
	defer terminal.Close()
	e.runLocally(e.ctx, command, terminal, terminal)
}
