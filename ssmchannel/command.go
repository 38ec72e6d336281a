package ssmchannel

import (
	"io"

	"ssm-ssh/ssmchannel/agentmsg"
)

// This file is about what sessions that run a command or a shell have and Port
// sessions have not: a window size, a separate standard error, an exit code.

// SessionType returns the type that the agent has named in the handshake
// ("Port", "Standard_Stream", "InteractiveCommands", "NonInteractiveCommands").
// It is "" when the session has none: then it is a shell.
func (c *Conn) SessionType() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shake.sessionType
}

// pendingSize is a window size that waits for room in the send window. Only the
// newest matters.
type pendingSize struct {
	size   agentmsg.TerminalSize
	waits  bool
	newest agentmsg.TerminalSize // as it was last sent
}

// Resize tells the node the size of the terminal. It does not wait: while the
// send window is full the newest size is kept and sent as soon as there is room.
// A size that is already known to the node is not sent again, nor is an empty one.
func (c *Conn) Resize(cols, rows int) error {
	if cols <= 0 || rows <= 0 || cols > maxTerminal || rows > maxTerminal {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isDown {
		return c.err
	}
	c.size.size = agentmsg.TerminalSize{Cols: uint32(cols), Rows: uint32(rows)}
	c.size.waits = c.size.size != c.size.newest
	c.pushSizeLocked()
	return nil
}

// maxTerminal is what a terminal's size can be at most (struct winsize of
// ioctl_tty(2)).
const maxTerminal = 1<<16 - 1

// pushSizeLocked queues the size that waits, if there is room.
func (c *Conn) pushSizeLocked() {
	if !c.size.waits || !c.out.room(c.frames.size) {
		return
	}
	payload, err := agentmsg.MarshalPayload(c.size.size)
	if err != nil {
		return // a pair of numbers can always be marshalled
	}
	c.size.waits, c.size.newest = false, c.size.size
	c.out.push(c.newFrame(agentmsg.Size, payload)) // never encrypted
	signal(c.sendable)
}

// Stderr returns the standard error of a command whose document keeps it apart
// (NonInteractiveCommands with separateOutputStream). It ends as Read does, and
// the read deadline holds for it. What is in neither reader's hands counts
// against Config.IncomingBytes, so both must be read.
func (c *Conn) Stderr() io.Reader { return stderr{c} }

type stderr struct{ conn *Conn }

func (s stderr) Read(p []byte) (int, error) {
	c := s.conn
	c.errReadMu.Lock()
	defer c.errReadMu.Unlock()
	return c.read(&c.errbox, c.errReadable, p)
}

// deliverStderr takes in bytes of standard error. c.mu is held.
func (c *Conn) deliverStderr(payload []byte) {
	c.counts.bytesReceived += uint64(len(payload))
	if !c.health.closing {
		c.errbox.write(payload)
		signal(c.errReadable)
	}
}

// heldLocked is how much received data waits for readers, in bytes.
func (c *Conn) heldLocked() int { return c.inbox.n + c.errbox.n }

// exitCode is what a command has ended with. Conn.mu guards it.
type exitCode struct {
	code  int
	known bool
}

// deliverExitCode takes in the end of a command. c.mu is held.
func (c *Conn) deliverExitCode(payload []byte) {
	code, err := agentmsg.ParseExitCode(payload)
	if err != nil {
		c.cfg.Logf(1, "%v", err)
		return
	}
	c.exit = exitCode{code, true}
}

// ExitCode returns the exit code of a command whose document keeps the output
// streams apart; false while, or if, the agent has not told it.
func (c *Conn) ExitCode() (code int, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit.code, c.exit.known
}
