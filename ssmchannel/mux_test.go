package ssmchannel

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xtaci/smux"
	"golang.org/x/net/nettest"

	"ssm-ssh/ssmchannel/agentmsg"
)

// forwardingActions is the handshake of a session that takes many connections.
func forwardingActions() []agentmsg.RequestedAction {
	return []agentmsg.RequestedAction{{
		ActionType:       agentmsg.SessionTypeAction,
		ActionParameters: json.RawMessage(`{"SessionType":"Port","Properties":{"portNumber":"80","type":"LocalPortForwarding"}}`),
	}}
}

// idleMux is a session without loops, for what needs none.
func idleMux(t testing.TB) *muxSession {
	c := newConn(Session{ID: "s-1"}, Config{}.populate(), nil)
	t.Cleanup(func() { c.cancel(errors.New("over")) })
	return &muxSession{
		conn: c, done: make(chan struct{}), sendable: make(chan struct{}, 1), room: make(chan struct{}, 1),
		idle: make(chan struct{}, 1), streams: make(map[uint32]*muxStream), nextID: firstStream,
	}
}

// TestMuxVectors compares our frames with those of the library that the plugin uses.
func TestMuxVectors(t *testing.T) {
	raw, err := os.ReadFile("agentmsg/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Frames []struct{ Name, Hex string } `json:"smux_v1_client"`
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Frames) != 4 {
		t.Fatalf("%d vectors, %v", len(file.Frames), err)
	}
	m := idleMux(t)
	s, err := m.newStream()
	if err != nil {
		t.Fatal(err)
	}
	steps := []func() []byte{
		func() []byte { return m.take(nil) },
		func() []byte { s.Write([]byte("hello")); return m.take(nil) },
		func() []byte { s.Close(); return m.take(nil) },
		func() []byte { return appendMuxHeader(nil, muxHeader{command: muxNOP}) },
	}
	for i, v := range file.Frames {
		frame := steps[i]()
		if got := hex.EncodeToString(frame); got != v.Hex {
			t.Errorf("%s: %s, want %s", v.Name, got, v.Hex)
		}
		if h, err := parseMuxHeader(frame); err != nil || int(h.length) != len(frame)-muxHeaderBytes {
			t.Errorf("%s: read as %+v, %v", v.Name, h, err)
		}
	}
	if got := m.take(nil); len(got) != 0 {
		t.Errorf("then %x", got)
	}
}

// TestMuxIsFair: a stream with much to send lets others in between.
func TestMuxIsFair(t *testing.T) {
	m := idleMux(t)
	loud, _ := m.newStream()
	quiet, _ := m.newStream()
	m.take(nil)
	m.take(nil)
	loud.Write(make([]byte, muxFrameBytes))
	quiet.Write([]byte("x"))
	m.take(nil)
	loud.Write(make([]byte, muxFrameBytes))
	if h, _ := parseMuxHeader(m.take(nil)); h.stream != quiet.id {
		t.Errorf("stream %d comes next", h.stream)
	}
}

// joinedMux returns a multiplexed session whose other end is the library's server,
// with two data channels back to back in between.
func joinedMux(t *testing.T) (client *PortMux, server *smux.Session, stop func()) {
	t.Helper()
	left := newPeer(peerOptions{pace: 50 * time.Microsecond, actions: forwardingActions()})
	right := newPeer(peerOptions{pace: 50 * time.Microsecond})
	left.opt.forward, right.opt.forward = right, left
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	conns := [2]*Conn{}
	for i, p := range []*peer{left, right} {
		agents.Go(func() { p.run(ctx) })
		n := newNetwork(p, faults{})
		var err error
		conns[i], err = dialWith(ctx, Session{ID: "s-1"}, Config{Resume: n.resumeSession, WindowBytes: 64 << 10}.populate(), n.dial)
		if err != nil {
			t.Fatal(err)
		}
	}
	config := smux.DefaultConfig()
	config.KeepAliveDisabled = true
	server, err := smux.Server(conns[1], config)
	if err != nil {
		t.Fatal(err)
	}
	client, err = StartPortMux(conns[0])
	if err != nil || !client.Multiplexed() {
		t.Fatalf("multiplexed %v, %v", client.Multiplexed(), err)
	}
	return client, server, func() {
		client.Close()
		server.Close()
		conns[1].Close()
		cancel()
		agents.Wait()
	}
}

// TestMuxNetConn runs nettest.TestConn with a stream. The server's stream has not all
// that a net.Conn must have, so a pipe stands for it; the bytes go on as the agent
// carries them on, which closes both directions when one ends.
func TestMuxNetConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		client, server, end := joinedMux(t)
		c1, err = client.Dial(t.Context())
		if err != nil {
			return nil, nil, nil, err
		}
		stream, err := server.AcceptStream()
		if err != nil {
			return nil, nil, nil, err
		}
		inner, outer := net.Pipe()
		var copies sync.WaitGroup
		one := func(to, from net.Conn) {
			io.Copy(to, from)
			to.Close()
			from.Close()
		}
		copies.Go(func() { one(inner, stream) })
		copies.Go(func() { one(stream, inner) })
		return c1, outer, func() {
			c1.Close()
			outer.Close()
			end()
			copies.Wait()
		}, nil
	})
}

// inMux plays with a multiplexed session in synthetic time.
func inMux(t *testing.T, play func(t *testing.T, client *PortMux, peer *peer, net *network)) {
	t.Helper()
	inScene(t, peerOptions{actions: forwardingActions()}, faults{}, Config{}, func(s *scene) {
		client, err := StartPortMux(s.conn)
		if err != nil {
			t.Fatal(err)
		}
		play(s.T, client, s.peer, s.net)
		client.Close()
	})
}

func muxFrame(command muxCommand, stream uint32, data string) []byte {
	return append(appendMuxHeader(nil, muxHeader{command, uint16(len(data)), stream}), data...)
}

// TestPortErrorFindsItsStream: the flag names no stream; the first that ends without
// a byte after it is meant, and no other.
func TestPortErrorFindsItsStream(t *testing.T) {
	inMux(t, func(t *testing.T, client *PortMux, p *peer, _ *network) {
		var conns [4]net.Conn
		for i := range conns {
			var err error
			if conns[i], err = client.Dial(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		refuse := func() {
			p.sendStream(agentmsg.FlagPayload, agentmsg.AppendFlag(nil, agentmsg.ConnectToPortError))
		}
		p.sendStream(agentmsg.Output, muxFrame(muxPSH, 3, "served"))
		p.sendStream(agentmsg.Output, muxFrame(muxFIN, 5, "")) // accepted, and closed at once
		refuse()
		p.sendStream(agentmsg.Output, muxFrame(muxFIN, 3, ""))
		p.sendStream(agentmsg.Output, muxFrame(muxFIN, 7, ""))
		p.sendStream(agentmsg.Output, muxFrame(muxFIN, 9, ""))
		for i, want := range []error{nil, nil, ErrPort, nil} {
			got, err := io.ReadAll(conns[i])
			if !errors.Is(err, want) || (want == nil) != (err == nil) || (i == 0) != (string(got) == "served") {
				t.Errorf("connection %d: %q, %v", i, got, err)
			}
		}
		if _, err := conns[2].Write([]byte("x")); !errors.Is(err, ErrPort) {
			t.Errorf("write to the refused one: %v", err)
		}
		if _, err := conns[3].Write([]byte("x")); !errors.Is(err, errHungUp) {
			t.Errorf("write to the closed one: %v", err)
		}
	})
}

// TestSessionEndIsNoEOF: a connection that dies with its session must not look
// complete.
func TestSessionEndIsNoEOF(t *testing.T) {
	tests := []struct {
		name string
		end  func(*peer)
		want func(error) bool
	}{
		{"terminated", func(p *peer) { p.end("") }, func(err error) bool { return errors.Is(err, net.ErrClosed) }},
		{"with a reason", func(p *peer) { p.end("idle") }, func(err error) bool {
			var closed *CloseError
			return errors.As(err, &closed) && closed.Reason == "idle"
		}},
		{"in a frame", func(p *peer) {
			p.sendStream(agentmsg.Output, muxFrame(muxPSH, 3, "whole")[:10])
			p.end("")
		}, func(err error) bool { return errors.Is(err, net.ErrClosed) }},
		{"protocol", func(p *peer) { p.sendStream(agentmsg.Output, []byte("SSH-2.0-OpenSSH")) },
			func(err error) bool { return errors.Is(err, ErrProtocol) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inMux(t, func(t *testing.T, client *PortMux, p *peer, _ *network) {
				c, err := client.Dial(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				tt.end(p)
				if _, err := io.ReadAll(c); !tt.want(err) || errors.Is(err, io.EOF) {
					t.Errorf("read: %v", err)
				}
				<-client.Done()
				if _, err := c.Write([]byte("x")); !tt.want(err) {
					t.Errorf("write: %v", err)
				}
				if _, err := client.Dial(t.Context()); !tt.want(err) {
					t.Errorf("dial: %v", err)
				}
				if !tt.want(client.Err()) {
					t.Errorf("the session: %v", client.Err())
				}
			})
		})
	}
}

// TestMuxWhileTheNetworkIsGone: nothing of a stream's calls outlasts its limits.
func TestMuxWhileTheNetworkIsGone(t *testing.T) {
	inMux(t, func(t *testing.T, client *PortMux, p *peer, n *network) {
		c, err := client.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n.set(func() { n.resume, n.refuse = errors.New("no network"), errors.New("no network") })
		n.cut()
		c.SetWriteDeadline(time.Now().Add(time.Second))
		data := make([]byte, 8<<20)
		if n, err := c.Write(data); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(data) {
			t.Errorf("write: %d bytes, %v", n, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.Dial(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: %v", err)
		}
		c.SetWriteDeadline(time.Time{})
		blocked := make(chan error, 1)
		go func() { _, err := c.Write(data); blocked <- err }()
		synctest.Wait()
		c.Close()
		if err := <-blocked; !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked write: %v", err)
		}
		began := time.Now()
		client.Close()
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("close took %v", d)
		}
	})
}

// TestMuxKeepAlive: agents that expect keepalives get them, others none.
func TestMuxKeepAlive(t *testing.T) {
	for _, on := range []bool{true, false} {
		inScene(t, peerOptions{actions: forwardingActions()}, faults{}, Config{}, func(s *scene) {
			m := startMuxSession(s.conn, on)
			time.Sleep(35 * time.Second)
			got := s.peer.received()
			nop := muxFrame(muxNOP, 0, "")
			if want := bytes.Repeat(nop, map[bool]int{true: 3}[on]); !bytes.Equal(got, want) {
				t.Errorf("keepalive %v: %x", on, got)
			}
			m.close()
		})
	}
}

// TestUnreadStreamsAreBounded: what nobody reads stops at a bound, for all streams
// together, and goes on when it is read.
func TestUnreadStreamsAreBounded(t *testing.T) {
	inMux(t, func(t *testing.T, client *PortMux, p *peer, _ *network) {
		c, err := client.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const frames = 200 // of 32 KiB: more than session and connection hold
		data := bytes.Repeat(muxFrame(muxPSH, 3, string(make([]byte, muxFrameBytes-1))), frames)
		p.write(data)
		time.Sleep(30 * time.Second)
		m := client.mux
		m.mu.Lock()
		held := m.held
		m.mu.Unlock()
		if held < muxIncomingBytes || held > muxIncomingBytes+64<<10 {
			t.Errorf("%d bytes held", held)
		}
		if n, err := io.CopyN(io.Discard, c, frames*(muxFrameBytes-1)); err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.held != 0 {
			t.Errorf("%d bytes held at the end", m.held)
		}
	})
}

func TestNoMuxOverAShell(t *testing.T) {
	inScene(t, peerOptions{noHandshake: true}, faults{}, Config{}, func(s *scene) {
		if _, err := StartPortMux(s.conn); !errors.Is(err, ErrNoMux) {
			t.Errorf("got %v", err)
		}
	})
}

// TestMuxForgetsStreams: closed streams leave nothing behind.
func TestMuxForgetsStreams(t *testing.T) {
	inMux(t, func(t *testing.T, client *PortMux, p *peer, _ *network) {
		for i := range 10 {
			c, err := client.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			p.sendStream(agentmsg.Output, muxFrame(muxPSH, uint32(3+2*i), "late"))
			p.sendStream(agentmsg.Output, muxFrame(muxFIN, uint32(3+2*i), ""))
		}
		synctest.Wait()
		time.Sleep(time.Second)
		m := client.mux
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.streams) != 0 || m.held != 0 {
			t.Errorf("%d streams, %d bytes", len(m.streams), m.held)
		}
	})
}

// FuzzMuxFrames reads what it likes as the bytes of a session with two streams.
func FuzzMuxFrames(f *testing.F) {
	f.Add(append(muxFrame(muxPSH, 3, "hello"), muxFrame(muxFIN, 3, "")...))
	f.Add(append(muxFrame(muxNOP, 0, ""), muxFrame(muxSYN, 2, "")...))
	f.Add([]byte("SSH-2.0-OpenSSH_9.6\r\n"))
	f.Add(muxFrame(muxPSH, 5, "hello")[:9])
	f.Fuzz(func(t *testing.T, data []byte) {
		m := idleMux(t)
		a, _ := m.newStream()
		b, _ := m.newStream()
		m.conn.inbox.write(data)
		m.conn.err, m.conn.isDown = io.EOF, true
		err := m.readLoop()
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("ended with %v", err)
		}
		if m.held != a.inbox.n+b.inbox.n || m.held > len(data) {
			t.Errorf("%d bytes held, %d and %d in streams", m.held, a.inbox.n, b.inbox.n)
		}
	})
}

func FuzzMuxHeader(f *testing.F) {
	f.Add([]byte{1, 2, 5, 0, 3, 0, 0, 0})
	f.Add([]byte{2, 2, 5, 0, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) < muxHeaderBytes {
			return
		}
		h, err := parseMuxHeader(raw)
		if err == nil && !bytes.Equal(appendMuxHeader(nil, h), raw[:muxHeaderBytes]) {
			t.Errorf("%x became %+v", raw, h)
		}
	})
}
