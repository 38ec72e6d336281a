package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"ssm-ssh/ssmchannel/agentmsg"
)

// basicPort is a session over one TCP connection at a time (port_basic.go). Without a type in the
// document the session ends with the connection; with LocalPortForwarding, from clients too old
// for smux, the next data dials again.
type basicPort struct {
	worker *worker
	redial bool

	mu         sync.Mutex
	conn       net.Conn
	fresh      chan net.Conn // a connection that input dialled anew; capacity 1: one at a time
	terminated chan struct{} // unbuffered, read once, as in the agent
}

// serveBasic returns nil when the port has closed the connection.
func (w *worker) serveBasic(redial bool) error {
	conn, err := w.dialPort(w.ctx)
	if err != nil {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		return fmt.Errorf("%w: Unable to connect to specified port: %w", errCrashed, err)
	}
	p := &basicPort{worker: w, redial: redial, conn: conn, fresh: make(chan net.Conn, 1), terminated: make(chan struct{})}
	w.setHandler(p)
	defer p.hangUp()
	ended := make(chan error, 1) // capacity 1: the pump leaves even when nobody listens any more
	w.parts.Go(func() { ended <- p.copyOut(conn) })
	select {
	case err := <-ended:
		return err
	case <-p.terminated:
		return nil
	case <-w.cancel:
		return errCancelled
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// copyOut carries the port's bytes to the client until the session is over.
func (p *basicPort) copyOut(conn net.Conn) error {
	for {
		err := p.worker.pump(conn.Read)
		if !p.redial || p.worker.ctx.Err() != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		p.drop(conn) // the client is not told
		select {
		case conn = <-p.fresh:
		case <-p.worker.ctx.Done():
			return context.Cause(p.worker.ctx)
		}
	}
}

// input writes to the port; while that blocks, the worker reads nothing.
func (p *basicPort) input(payloadType agentmsg.PayloadType, payload []byte) error {
	switch payloadType {
	case agentmsg.Output:
		conn, err := p.connected()
		if err != nil {
			return err
		}
		_, err = conn.Write(payload)
		return err
	case agentmsg.FlagPayload:
		flag, err := agentmsg.ParseFlag(payload)
		if err != nil {
			return err
		}
		return p.flag(flag)
	}
	return nil
}

// connected returns the connection, dialling anew where the mode has it so.
func (p *basicPort) connected() (net.Conn, error) {
	p.mu.Lock()
	conn := p.conn
	p.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	if !p.redial {
		return nil, errNotReady
	}
	conn, err := p.worker.dialPort(p.worker.ctx)
	if err != nil {
		p.worker.cancelSession()
		return nil, err
	}
	p.mu.Lock()
	p.conn = conn
	p.mu.Unlock()
	p.fresh <- conn // never blocks: conn was nil, so copyOut has taken the one before
	return conn, nil
}

func (p *basicPort) flag(flag agentmsg.Flag) error {
	switch flag {
	case agentmsg.DisconnectToPort:
		p.mu.Lock()
		conn := p.conn
		p.mu.Unlock()
		if conn != nil {
			conn.Close()
		}
	case agentmsg.TerminateSession:
		select {
		case p.terminated <- struct{}{}: // a second one blocks the reader, as in the agent
		case <-p.worker.ctx.Done():
		}
	}
	return nil
}

func (p *basicPort) drop(conn net.Conn) {
	conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn == conn {
		p.conn = nil
	}
}

func (p *basicPort) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
	}
}
