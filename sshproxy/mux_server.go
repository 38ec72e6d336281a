package sshproxy

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"ssm-ssh/internal/fdpass"
)

// muxServer is one control connection at the master's side. Its reader, serve, owns it: it answers
// the requests in order, and when the client has gone it ends what the client had begun. A session
// runs beside it, so that a client that dies is noticed at once.
type muxServer struct {
	master *Master
	conn   *muxConn
	wg     sync.WaitGroup // the session's runner and what it waits with
	// patience is how long a lost link is waited for; set by serve before the first request.
	patience time.Duration

	// The reader's own.
	busy     bool      // a session or a stdio forward has begun: a connection carries one
	forwards []Forward // that this client has asked for, where they end with it

	// passenger is set by serve, once; abort and windowChanged read it from elsewhere.
	mu        sync.Mutex
	aborted   bool
	passenger *passenger
}

func newMuxServer(m *Master, c *net.UnixConn) *muxServer {
	return &muxServer{master: m, conn: newMuxConn(c), patience: m.client.cfg.ConnectTimeout}
}

// errClientDone ends a connection without a complaint.
var errClientDone = errors.New("mux client is done")

// serve speaks with the client until it goes away or breaks the protocol, and returns when
// everything that it had begun has ended.
func (s *muxServer) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	err := s.converse(ctx)
	if err != nil && !gone(err) && !errors.Is(err, errClientDone) {
		s.master.cfg.Logf(1, "mux client dropped: %v", err)
	}
	cancel()
	if p := s.current(); p != nil {
		p.clientGone()
	}
	s.conn.Close()
	s.wg.Wait()
	s.releaseForwards()
	s.conn.in.Close()
}

// converse exchanges HELLOs and answers requests.
func (s *muxServer) converse(ctx context.Context) error {
	if err := s.conn.send(&helloMessage{Version: muxVersion, Extensions: s.master.offers()}); err != nil {
		return err
	}
	for greeted := false; ; greeted = true {
		frame, err := s.conn.receive()
		if err != nil {
			return err
		}
		m, err := decodeRequest(frame)
		if err != nil {
			return err
		}
		hello, isHello := m.(*helloMessage)
		switch {
		case isHello == greeted: // a request before HELLO, or a second one (mux.c, mux_master_read_cb)
			return errMalformed
		case isHello && hello.Version != muxVersion:
			return errMalformed
		case isHello:
			s.setPatience(hello.Extensions)
			continue
		}
		s.master.used()
		if err := s.handle(ctx, m); err != nil {
			return err
		}
	}
}

// setPatience takes the client's own ConnectTimeout, where it is one of ours and says so; a stock
// client gets the master's.
func (s *muxServer) setPatience(extensions []Extension) {
	for _, e := range extensions {
		if d, err := time.ParseDuration(e.Value); err == nil && e.Name == timeoutExtension {
			s.patience = d
		}
	}
}

// handle answers one request; an error ends the connection.
func (s *muxServer) handle(ctx context.Context, m muxMessage) error {
	switch m := m.(type) {
	case *newSessionMessage:
		return s.newSession(ctx, m)
	case *stdioMessage:
		return s.newStdio(ctx, m)
	case *forwardMessage:
		return s.handleForward(ctx, m)
	case *plainMessage:
		return s.handlePlain(ctx, m)
	case *environmentMessage:
		if s.master.cfg.Environment != nil {
			s.master.cfg.Environment(m.Env)
		}
		return nil
	case *signalMessage:
		if p := s.current(); p != nil && s.master.cfg.Signals {
			p.signal(m.Name)
		}
		return nil
	case *infoRequestMessage:
		return s.fail(m.ID, reasonUnsupported) // as ssh 9.2, which doesn't know it
	default:
		return errMalformed
	}
}

func (s *muxServer) handlePlain(ctx context.Context, m *plainMessage) error {
	switch m.Kind {
	case muxAliveCheck:
		return s.conn.send(&numberMessage{Kind: muxAlive, ID: m.ID, Number: uint32(os.Getpid())})
	case muxTerminate:
		if !s.master.allowed(ctx, questionTerminate, s.master.cfg.Host) {
			return s.deny(m.ID)
		}
		// OpenSSH's master ends without an answer; ours can say so first. A client that went away
		// without waiting for it meant it all the same.
		_ = s.conn.send(&plainMessage{Kind: muxOK, ID: m.ID})
		s.master.end()
		return errClientDone
	case muxStopListening:
		if !s.master.allowed(ctx, questionStop, s.master.cfg.Host) {
			return s.deny(m.ID)
		}
		s.master.stopListening()
		return s.conn.send(&plainMessage{Kind: muxOK, ID: m.ID})
	case muxProxy:
		return s.serveProxy(ctx, m.ID)
	default:
		return s.fail(m.ID, reasonUnsupported)
	}
}

func (s *muxServer) fail(id uint32, reason string) error {
	return s.conn.send(&refusalMessage{Kind: muxFailure, ID: id, Reason: reason})
}

func (s *muxServer) deny(id uint32) error {
	return s.conn.send(&refusalMessage{Kind: muxDenied, ID: id, Reason: reasonDenied})
}

// newSession takes the session's descriptors and starts its runner.
func (s *muxServer) newSession(ctx context.Context, m *newSessionMessage) error {
	fds, err := s.descriptors(m.ID, 3)
	if err != nil {
		return err
	}
	switch {
	case s.busy:
		closeAll(fds)
		return s.fail(m.ID, reasonSecondSession)
	case !s.master.allowed(ctx, questionSession, s.master.cfg.Host):
		closeAll(fds)
		return s.deny(m.ID)
	}
	p, err := newPassenger(s, m, fds)
	if err != nil {
		return s.fail(m.ID, reasonNoDescriptors)
	}
	s.busy = true
	s.mu.Lock()
	s.passenger = p
	if s.aborted {
		p.abort()
	}
	s.mu.Unlock()
	s.wg.Go(func() { p.run(ctx) })
	return nil
}

// newStdio takes the two descriptors of a stdio forward and starts its runner.
func (s *muxServer) newStdio(ctx context.Context, m *stdioMessage) error {
	fds, err := s.descriptors(m.ID, 2)
	if err != nil {
		return err
	}
	switch {
	case s.busy:
		closeAll(fds)
		return s.fail(m.ID, reasonSecondSession)
	case !s.master.allowed(ctx, questionStdio, m.Host, m.Port):
		closeAll(fds)
		return s.deny(m.ID)
	}
	streams, err := s.streams(fds)
	if err != nil {
		return s.fail(m.ID, reasonNoDescriptors)
	}
	s.busy = true
	p := &stdioPassenger{server: s, id: m.ID, to: endpointOf(m.Host, m.Port), local: stdio{streams[0], streams[1]}}
	s.wg.Go(func() { p.run(ctx) })
	return nil
}

// descriptors takes n of them; without, the client is told so and dropped.
func (s *muxServer) descriptors(id uint32, n int) ([]int, error) {
	var fds []int
	for range n {
		fd, err := s.conn.in.NextFD()
		if err != nil {
			closeAll(fds)
			return nil, errors.Join(err, s.fail(id, reasonNoDescriptors))
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// streams makes them of descriptors that it takes over.
func (s *muxServer) streams(fds []int) ([]*fdpass.Stream, error) {
	var streams []*fdpass.Stream
	for i, fd := range fds {
		stream, err := fdpass.NewStream(s.master.poller, fd)
		if err != nil {
			closeAll(fds[i+1:])
			for _, made := range streams {
				_ = made.Close() // nothing went through it
			}
			return nil, err
		}
		streams = append(streams, stream)
	}
	return streams, nil
}

func (s *muxServer) current() *passenger {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passenger
}

// abort ends the connection and its session at once.
func (s *muxServer) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	s.conn.Close()
	if s.passenger != nil {
		s.passenger.abort()
	}
}

func (s *muxServer) windowChanged() {
	if p := s.current(); p != nil {
		p.windowChanged()
	}
}
