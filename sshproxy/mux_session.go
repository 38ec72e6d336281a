package sshproxy

import (
	"context"
	"os"
)

// MuxSessionRequest is a session through a master. The files are lent, not given: the master reads
// and writes copies until the session ends, and the caller closes its own.
type MuxSessionRequest struct {
	Command   string // "" starts a shell
	Subsystem bool   // Command is a subsystem's name
	TTY       bool
	Term      string
	Agent     bool
	Escape    byte     // the escape character of a session with a tty; 0 for none
	Env       []string // NAME=value; the master takes those that its own SendEnv allows

	Stdin, Stdout, Stderr *os.File // nil: the null device
	// OnTTYFail is called by Wait when the node has refused a pty and the session goes on without.
	OnTTYFail func()
}

// MuxSession is a session that a master runs for us.
type MuxSession struct {
	client    *MuxClient
	id        uint32
	onTTYFail func()
}

// NewSession asks the master for a session and returns when its channel is open. After an error that
// is ErrMasterGone or holds a *MuxRefusedError nothing was run.
func (c *MuxClient) NewSession(ctx context.Context, req MuxSessionRequest) (*MuxSession, error) {
	if c.pid == 0 {
		if _, err := c.Check(ctx); err != nil {
			return nil, err
		}
	}
	files := []*os.File{req.Stdin, req.Stdout, req.Stderr}
	for i, f := range files {
		if f != nil {
			continue
		}
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		files[i] = null
	}
	m := &newSessionMessage{ID: c.id, TTY: req.TTY, Agent: req.Agent, Subsystem: req.Subsystem, Escape: muxNoEscape,
		Term: req.Term, Command: req.Command, Env: req.Env}
	if req.Escape != 0 {
		m.Escape = uint32(req.Escape)
	}
	reply, err := c.request(ctx, m, wordsSession, files...)
	if err != nil {
		return nil, err
	}
	id, err := expect(reply, muxSessionOpened)
	if err != nil {
		return nil, &TextError{Text: wordsSession.read, Err: err}
	}
	return &MuxSession{client: c, id: id, onTTYFail: req.OnTTYFail}, nil
}

// MasterPID returns the master's process, which re-reads the terminal's size on SIGWINCH.
func (s *MuxSession) MasterPID() int { return s.client.pid }

// Signal asks for a signal as Session.Signal does, where the master is one of ours; OpenSSH's protocol has no
// word for it.
func (s *MuxSession) Signal(name string) {
	if s.client.offers(signalExtension) {
		_ = s.client.conn.send(&signalMessage{Name: name}) // fails only when the master has gone
	}
}

// Wait returns the exit status (0-255) when the master has ended the session; its output is written
// by then. ok is false when there was no status: death by signal, or the master or its connection
// ended first.
func (s *MuxSession) Wait() (status int, ok bool) {
	defer s.client.conn.in.Close() // a master passes no descriptors; none may pile up
	for {
		frame, err := s.client.conn.receive()
		if err != nil {
			return status, ok
		}
		m, err := decodeReply(frame)
		if err != nil {
			return status, ok
		}
		switch m := m.(type) {
		case *numberMessage:
			if m.Kind == muxExit && m.ID == s.id {
				status, ok = int(m.Number&0xff), true
			}
		case *plainMessage:
			if m.Kind == muxTTYFail && m.ID == s.id && s.onTTYFail != nil {
				s.onTTYFail()
			}
		}
	}
}

// Close lets go of the session: a Wait returns, and the master gives the command EOF on its input,
// or a hang-up where it has a pty.
func (s *MuxSession) Close() error { return s.client.Close() }
