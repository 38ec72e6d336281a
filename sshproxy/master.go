package sshproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"ssm-ssh/internal/fdpass"
)

// acceptPause is the rest after a failed accept, as with no descriptor left (channels.c,
// channel_post_mux_listener: notbefore).
const acceptPause = time.Second

// MasterConfig says how a Master serves.
type MasterConfig struct {
	Host string // the target, in questions to the user

	// Persist is how long the master waits for the next client after the last has gone; below 0 for
	// ever. One that has asked for nothing, only read the HELLO, doesn't count: looking at a master keeps
	// it no longer. It counts only with PersistSet; without, the master serves while someone holds it (Hold)
	// and ends after the last holder and the last client.
	Persist    time.Duration
	PersistSet bool

	SendEnv      []string // patterns of the variables that clients may send
	SetEnv       []string // NAME=value, added to every session
	ForwardAgent bool     // clients may ask for it

	// Spares is how many session channels are kept open ahead of need. A command whose channel is
	// open already takes one round trip; 0 keeps none. They hold nothing up: a client that waits takes
	// one, and the master ends as if they were not there.
	Spares int

	// Forwarder runs the forwards that clients ask for; nil has the master make one with Forward.
	Forwarder *Forwarder
	Forward   ForwardConfig
	// ForwardsEndWithClient takes a forward away when the last client that has asked for it goes.
	// Else it stays until it is cancelled or the master ends, as with ssh.
	ForwardsEndWithClient bool

	// Extensions are offered in HELLO, and after them what Status returns at that time; nil: nothing.
	Extensions []Extension
	Status     func() Extension

	// Environment is called with the variables that a client of ours hands over (see
	// MuxClient.HandOver), in that client's goroutine; nil takes none.
	Environment func(env []string)

	// Signals has clients of ours send their sessions' commands signals (see MuxSession.Signal).
	Signals bool

	// Idle is called once whenever the master has been without a client for IdleAfter: a moment to do
	// what would be in a client's way. Nil: never. The master doesn't wait for it.
	Idle      func()
	IdleAfter time.Duration

	// Ask has the user confirm each request (ControlMaster ask); nil grants all.
	Ask func(ctx context.Context, question string) bool

	Logf func(level int, format string, args ...any)
}

// Master shares one SSH connection with the clients of a control socket. It owns the connection
// from Serve on.
//
// A client that only holds its connection costs one goroutine; one with a session six (its reader,
// its session's runner, three streams, the channel's requests) and 96 KiB of copy buffers, besides
// the channel's window (see Session). None of them waits for another's descriptors.
type Master struct {
	client   *Client
	cfg      MasterConfig
	queue    *sessionQueue
	forwards *Forwarder

	poller *fdpass.Poller // set by Serve before the first client
	wg     sync.WaitGroup // the goroutines of accept and of every client

	over     chan struct{} // closed when there is nothing more to serve
	overOnce sync.Once

	mu       sync.Mutex
	listener *Listener
	clients  map[*muxServer]struct{}
	holds    int
	closed   bool // no client can come any more
	timer    *time.Timer
	expires  time.Time   // the end of the persist time; zero: it begins anew with timer
	rest     *time.Timer // until Idle; nil: there is a client
	sessions uint32      // numbers given so far
}

// NewMaster returns a master over client; Serve begins its work.
func NewMaster(client *Client, cfg MasterConfig) *Master {
	if cfg.Logf == nil {
		cfg.Logf = func(int, string, ...any) {}
	}
	if cfg.Forwarder == nil {
		cfg.Forwarder = NewForwarder(client, cfg.Forward)
	}
	m := &Master{
		client:   client,
		cfg:      cfg,
		queue:    newSessionQueue(client, cfg.Spares, client.another()),
		forwards: cfg.Forwarder,
		over:     make(chan struct{}),
		clients:  make(map[*muxServer]struct{}),
	}
	m.forwards.holdWith(m.Hold)
	return m
}

// Hold keeps the master serving, as the session of a foreground master's own does, until release is
// called. With PersistSet it counts as a client.
func (m *Master) Hold() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds++
	m.expires = time.Time{}
	m.settleLocked()
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.holds--
		m.settleLocked()
	})
}

// OpenSession opens a session for the master's own process, in turn with those of its clients.
func (m *Master) OpenSession(ctx context.Context) (*Session, error) { return m.queue.acquire(ctx) }

// Serve serves the clients of l, whose owner it becomes, and returns when that is over: nil when the
// persist time has passed without a client or a client asked for the end (exit; or stop, and the last
// client has gone), the connection's error when it was lost, or the end of ctx. Sessions that ride on
// further connections (Config.Another) outlive the loss of the first. By then the socket is gone, all
// sessions and forwards have ended and the client is closed.
func (m *Master) Serve(ctx context.Context, l *Listener) error {
	poller, err := fdpass.NewPoller()
	if err != nil {
		return errors.Join(err, l.Close(), m.client.Close())
	}
	m.poller = poller
	life, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	m.mu.Lock()
	m.listener = l
	m.wg.Go(func() { m.accept(life, l) })
	m.settleLocked()
	m.mu.Unlock()
	m.queue.fill() // the first client is still on its way

	select {
	case <-m.over:
	case <-m.client.Done():
		err = m.client.Err()
		others := m.queue.abandon(err)
		m.flush()
		m.outlive(ctx, others)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	cancel(net.ErrClosed)
	return errors.Join(err, m.shutdown())
}

// accept takes clients until the listener is stopped, and then those that had connected before.
func (m *Master) accept(ctx context.Context, l *Listener) {
	for ctx.Err() == nil {
		c, err := l.accept()
		switch {
		case err == nil:
			m.admit(ctx, c)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			m.acceptRest(ctx, l)
			return
		default:
			m.cfg.Logf(1, "control socket: %v", err)
			pause(ctx, acceptPause)
		}
	}
}

// acceptRest empties the queue of a socket that has no name any more, and closes it.
func (m *Master) acceptRest(ctx context.Context, l *Listener) {
	for ctx.Err() == nil {
		c, err := l.waiting()
		if err != nil && (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)) {
			pause(ctx, acceptPause)
			continue
		}
		if err != nil || c == nil {
			break
		}
		m.admit(ctx, c)
	}
	_ = l.Close() // it is without a name already
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.settleLocked()
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// admit begins to serve a client, if it is one of ours.
func (m *Master) admit(ctx context.Context, c *net.UnixConn) {
	if err := checkPeer(c); err != nil {
		m.cfg.Logf(-1, "%v", err)
		c.Close()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isOver() {
		c.Close() // before it was asked anything
		return
	}
	s := newMuxServer(m, c)
	m.clients[s] = struct{}{}
	m.settleLocked()
	m.wg.Go(func() {
		s.serve(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.clients, s)
		m.settleLocked()
	})
}

// settleLocked decides what follows from the number of clients. m.mu is held.
func (m *Master) settleLocked() {
	idle := len(m.clients) == 0 && m.holds == 0
	m.restLocked(idle)
	switch {
	case !idle:
		m.stopTimerLocked()
	case m.closed:
		m.end()
	case m.listener == nil: // Serve has not begun
	case !m.cfg.PersistSet:
		m.listener.stop()
	case m.cfg.Persist >= 0 && m.timer == nil:
		m.startTimerLocked()
	}
}

// restLocked has Idle called in a while, or not any more. m.mu is held.
func (m *Master) restLocked(idle bool) {
	switch {
	case m.cfg.Idle == nil:
	case !idle && m.rest != nil:
		m.rest.Stop()
		m.rest = nil
	case idle && m.rest == nil && !m.isOver():
		m.rest = time.AfterFunc(m.cfg.IdleAfter, m.cfg.Idle)
	}
}

// used has the persist time begin anew when the last client has gone.
func (m *Master) used() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expires = time.Time{}
}

// startTimerLocked begins the persist time, or goes on with it where nobody has asked for anything
// since. A client that comes at its last moment is served: it either stops the timer, or waits at the
// socket and is found there once the name is gone.
func (m *Master) startTimerLocked() {
	if m.expires.IsZero() {
		m.expires = time.Now().Add(m.cfg.Persist)
	}
	var timer *time.Timer
	timer = time.AfterFunc(time.Until(m.expires), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.timer == timer { // else it was stopped as it fired
			m.listener.stop()
		}
	})
	m.timer = timer
}

func (m *Master) stopTimerLocked() {
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

// offers are the pairs of the master's HELLO.
func (m *Master) offers() []Extension {
	offered := slices.Clip(m.cfg.Extensions)
	if m.cfg.Status != nil {
		offered = append(offered, m.cfg.Status())
	}
	if m.cfg.Environment != nil {
		offered = append(offered, Extension{Name: environmentExtension})
	}
	if m.cfg.Signals {
		offered = append(offered, Extension{Name: signalExtension})
	}
	return offered
}

// nextSession returns a session's number on the wire.
func (m *Master) nextSession() uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions++
	return m.sessions
}

// Connections lists what is open on the connection: sessions by their number on the wire, and what
// goes through forwards (channels.c, channel_open_message, has more of each).
func (m *Master) Connections() []string {
	m.mu.Lock()
	var sessions []uint32
	for s := range m.clients {
		if p := s.current(); p != nil {
			sessions = append(sessions, p.number)
		}
	}
	m.mu.Unlock()
	slices.Sort(sessions)
	var all []string
	for _, number := range sessions {
		all = append(all, fmt.Sprintf("#%d client-session", number))
	}
	return append(all, m.forwards.Connections()...)
}

// WindowChanged has every client's terminal measured again. A master calls it on SIGWINCH, which its
// clients relay (mux.c, control_client_sigrelay).
func (m *Master) WindowChanged() {
	m.mu.Lock()
	var clients []*muxServer
	for s := range m.clients {
		clients = append(clients, s)
	}
	m.mu.Unlock()
	for _, s := range clients {
		s.windowChanged()
	}
}

// allowed asks the user, where ControlMaster ask is set.
func (m *Master) allowed(ctx context.Context, question string, args ...any) bool {
	return m.cfg.Ask == nil || m.cfg.Ask(ctx, fmt.Sprintf(question, args...))
}
