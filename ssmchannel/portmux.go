package ssmchannel

import (
	"context"
	"errors"
	"fmt"
	"net"

	"ssm-ssh/ssmchannel/agentmsg"
)

// ErrNoMux says that a session has no port that connections could be made to.
var ErrNoMux = errors.New("not a port session")

// PortMux makes connections to the port of a session, on the node or beyond it. A
// session of a port-forwarding document takes many at the same time; with an old
// agent one after the other; a session of the SSH document one in its life.
type PortMux struct {
	conn  *Conn
	mux   *muxSession // nil: one connection at a time
	basic *basicPort
}

// StartPortMux takes over a connection on which nothing has been read or written.
// The caller closes the PortMux in place of it.
func StartPortMux(conn *Conn) (*PortMux, error) {
	conn.mu.Lock()
	shake := conn.shake
	conn.mu.Unlock()
	if shake.sessionType != agentmsg.PortSession {
		return nil, edge(ErrNoMux)
	}
	p := &PortMux{conn: conn}
	if client := conn.cfg.ClientVersion; shake.forwarding && multiplexes(shake.agentVersion, client) {
		p.mux = startMuxSession(conn, keepsAlive(shake.agentVersion, client))
	} else {
		p.basic = newBasicPort(conn, shake.forwarding)
	}
	return p, nil
}

// Multiplexed reports whether connections can be open at the same time.
func (p *PortMux) Multiplexed() bool { return p.mux != nil }

// Dial opens a connection. In a session that is multiplexed it does not wait for
// the node, which does not answer it: a port that cannot be reached shows as
// ErrPort at the first Read. In any other Dial waits until the last connection is
// closed.
//
// The session knows no half close: when either side closes a connection, what is
// still under way in it is lost.
func (p *PortMux) Dial(ctx context.Context) (net.Conn, error) {
	var conn net.Conn
	var err error
	if p.mux != nil {
		var s *muxStream
		if s, err = p.mux.open(ctx); err == nil {
			conn = s
		}
	} else {
		conn, err = p.basic.open(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("ssmchannel: opening a connection to the port: %w", err)
	}
	return conn, nil
}

// Close ends all connections and the session, as Conn.Close does.
func (p *PortMux) Close() error {
	if p.mux != nil {
		return p.mux.close()
	}
	return p.conn.Close()
}

// Done is closed when no connection can be made any more.
func (p *PortMux) Done() <-chan struct{} {
	if p.mux != nil {
		return p.mux.done
	}
	return p.conn.Done()
}

// Err returns why Done is closed; nil before.
func (p *PortMux) Err() error {
	if p.mux != nil {
		return p.mux.cause()
	}
	return p.conn.Err()
}
