package ssmchannel

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// TestNetConn runs nettest.TestConn with two data channels whose agents are
// joined back to back, as if both dialled one port. What a Write has accepted
// may still be on its way when a side closes, so the joint passes on the end of
// a side as an orderly end of the other's session.
//
// All of its subtests apply, since it does not test half close.
func TestNetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		left := newPeer(peerOptions{pace: 50 * time.Microsecond})
		right := newPeer(peerOptions{pace: 50 * time.Microsecond})
		left.opt.forward, right.opt.forward = right, left
		ctx, cancel := context.WithCancel(context.Background())
		var agents sync.WaitGroup
		conns := [2]*Conn{}
		for i, p := range []*peer{left, right} {
			agents.Go(func() { p.run(ctx) })
			n := newNetwork(p, faults{})
			cfg := Config{Resume: n.resumeSession, WindowBytes: 64 << 10}.populate()
			conns[i], err = dialWith(ctx, Session{ID: "s-1"}, cfg, n.dial)
			if err != nil {
				cancel()
				agents.Wait()
				return nil, nil, nil, err
			}
		}
		stop = func() {
			conns[0].Close()
			conns[1].Close()
			cancel()
			agents.Wait()
		}
		return conns[0], conns[1], stop, nil
	})
}

// TestNetConnErrors checks the classes of local errors.
func TestNetConnErrors(t *testing.T) {
	inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
		s.conn.SetDeadline(s.conn.Stats().LastHeard)
		_, err := s.conn.Read(make([]byte, 1))
		if ne, ok := err.(net.Error); !ok || !ne.Timeout() || !os.IsTimeout(err) {
			t.Errorf("read after the deadline: %v", err)
		}
		_, err = s.conn.Write([]byte("x"))
		if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
			t.Errorf("write after the deadline: %v", err)
		}
		if n, err := s.conn.Read(nil); n != 0 || err == io.EOF {
			t.Errorf("empty read: %d, %v", n, err)
		}
		if s.conn.LocalAddr().Network() != "ssm" || s.conn.RemoteAddr().String() != "agent/s-1" {
			t.Errorf("addresses %v, %v", s.conn.LocalAddr(), s.conn.RemoteAddr())
		}
	})
}
