package ssmchannel

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// settleTime is how long a closed connection's last bytes may still come. The agent
// marks no end of them: it goes on with the next connection in the same stream.
const settleTime = 200 * time.Millisecond

// basicPort is a port session without multiplexing. The bytes of its connections
// follow each other without a mark; the agent is told where one of ours ends, and
// connects again for the next byte (agent: session/plugins/port/port_basic.go).
// It does not tell us when the port has closed a connection.
type basicPort struct {
	conn      *Conn
	reconnect bool          // the agent connects again
	free      chan struct{} // capacity 1: holds a token while no connection is open
	used      bool          // there was a connection; whoever has the token may ask
}

func newBasicPort(conn *Conn, reconnect bool) *basicPort {
	b := &basicPort{conn: conn, reconnect: reconnect, free: make(chan struct{}, 1)}
	b.free <- struct{}{}
	return b
}

func (b *basicPort) open(ctx context.Context) (net.Conn, error) {
	select {
	case <-b.free:
	case <-b.conn.closed:
		return nil, net.ErrClosed
	case <-b.conn.done:
		return nil, noEOF(b.conn.Err())
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b.used {
		if err := b.settle(ctx); err != nil {
			b.free <- struct{}{}
			return nil, err
		}
	}
	b.used = true
	return &basicConn{Conn: b.conn, port: b, closed: make(chan struct{})}, nil
}

// settle has a connection begin with its own bytes, as far as can be known: the
// agent has closed the one before, and its bytes have ceased to come.
func (b *basicPort) settle(ctx context.Context) error {
	c := b.conn
	c.awaitDrained()
	signal(c.drained) // Close may wait for it, too
	buf := make([]byte, defaultPayloadBytes)
	defer c.SetDeadline(time.Time{})
	for ctx.Err() == nil {
		c.SetReadDeadline(time.Now().Add(settleTime))
		_, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return noEOF(err)
		}
	}
	return context.Cause(ctx)
}

// basicConn is one connection of a basicPort.
type basicConn struct {
	*Conn
	port   *basicPort
	once   sync.Once
	closed chan struct{}
	calls  sync.RWMutex // held for reading by Read and Write
}

// Read implements net.Conn. In a session that reconnects it does not end when the
// port closes the connection.
func (b *basicConn) Read(p []byte) (int, error) {
	return b.guarded("read", b.Conn.Read, p)
}

// Write implements net.Conn.
func (b *basicConn) Write(p []byte) (int, error) {
	return b.guarded("write", b.Conn.Write, p)
}

// guarded makes a call that Close ends and waits for. Without that, a piece of a
// Write could follow the flag of the end and make the agent connect again.
func (b *basicConn) guarded(op string, call func([]byte) (int, error), p []byte) (int, error) {
	b.calls.RLock()
	defer b.calls.RUnlock()
	if isClosed(b.closed) {
		return 0, b.opError(op, net.ErrClosed)
	}
	n, err := call(p)
	if err != nil && isClosed(b.closed) {
		err = b.opError(op, net.ErrClosed)
	}
	return n, err
}

// Close implements net.Conn. It ends the session, where that was for one connection.
func (b *basicConn) Close() error {
	err := b.opError("close", net.ErrClosed)
	b.once.Do(func() {
		err = nil
		close(b.closed)
		if !b.port.reconnect {
			b.Conn.Close()
			return
		}
		b.Conn.SetDeadline(time.Now()) // ends what is blocked
		b.calls.Lock()
		defer b.calls.Unlock()
		b.Conn.sendFlag(agentmsg.DisconnectToPort)
		b.port.free <- struct{}{}
	})
	return err
}

// SetDeadline implements net.Conn.
func (b *basicConn) SetDeadline(t time.Time) error {
	return errors.Join(b.SetReadDeadline(t), b.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (b *basicConn) SetReadDeadline(t time.Time) error {
	if isClosed(b.closed) {
		return b.opError("set", net.ErrClosed)
	}
	return b.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (b *basicConn) SetWriteDeadline(t time.Time) error {
	if isClosed(b.closed) {
		return b.opError("set", net.ErrClosed)
	}
	return b.Conn.SetWriteDeadline(t)
}
