package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
	"ssm-ssh/ssmchannel"
)

// firstByteLimit bounds the wait for sshd's first byte. A node on which nothing listens stays
// silent for a minute, until its agent has given up on the worker.
const firstByteLimit = 15 * time.Second

// nodeConn is a connection to a node's sshd within an SSM session. Closing the last one of a session
// ends that, too.
type nodeConn struct {
	net.Conn  // of the session's port, with its first byte watched
	session   *nodeSession
	closeOnce sync.Once
	closeErr  error
}

// dialNode starts a session on a node and connects to sshd in it. Whatever happens, a session that
// was started is terminated: here on failure, by Close afterwards.
func dialNode(limit *connectLimit, node target.Target, opts *sshopt.Options, logf report.Logf) (net.Conn, error) {
	session, err := openSessionOn(limit, node, opts, logf)
	if err != nil {
		return nil, err
	}
	defer session.leave() // connected or not, this was the one who opened it
	return session.dial(limit.ctx)
}

// dial connects to the node's sshd. Where the session's document takes one connection only, that can
// be had once.
func (s *nodeSession) dial(ctx context.Context) (net.Conn, error) {
	if !s.enter() {
		return nil, net.ErrClosed
	}
	conn, err := s.port.Dial(ctx)
	if err != nil {
		s.leave()
		return nil, err
	}
	limit := firstByteLimit
	if s.patience > 0 {
		limit = s.patience
	}
	c := &nodeConn{session: s}
	c.Conn = newFirstByteConn(conn, limit, s.noSSHD(fmt.Errorf("no answer within %s", limit)))
	return c, nil
}

// Read reads. Why the session has ended comes out as the user's line, which the layers above carry
// within their own errors.
func (c *nodeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	s := c.session
	switch end := s.port.Err(); {
	case err == nil || errors.Is(err, io.EOF): // of this connection
		return n, err
	case errors.Is(err, ssmchannel.ErrPort):
		return n, s.noSSHD(ssmchannel.ErrPort)
	case end != nil:
		err = end
	}
	return n, lostError(s.host, s.resume, err)
}

// linkDown reports that the websocket is lost and being replaced.
func (c *nodeConn) linkDown() bool { return !c.session.channel.Stats().LostSince.IsZero() }

// another is what opens more connections to the same sshd; nil where the session takes but one at a
// time.
func (c *nodeConn) another() func(context.Context) (net.Conn, error) {
	if !c.session.port.Multiplexed() {
		return nil
	}
	return c.session.dial
}

// explain finds, for an SSH handshake that failed, a cause below it: the end of the data channel,
// or sshd's silence.
func (c *nodeConn) explain(err error) error {
	var line *report.Error
	var closed *ssmchannel.CloseError
	switch {
	case errors.As(c.session.channel.Err(), &closed):
		_, cause := closeCause(closed)
		return c.session.noSSHD(cause)
	case errors.As(err, &line):
		return line
	}
	return err
}

// Close ends the connection, and the session with its last one.
func (c *nodeConn) Close() error {
	c.closeOnce.Do(func() {
		c.closeErr = c.Conn.Close()
		c.session.leave()
	})
	return c.closeErr
}
