package sshproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// SessionRequest says what to start on a session channel.
//
// The streams belong to the session once Start has returned nil: it closes those that implement
// io.Closer, Stdin when nothing more will be read from it, Stdout when the remote end has sent EOF,
// Stderr at the channel's end. A stream that can block must be a Closer whose Close ends a blocked
// call. After an error from Start they are still the caller's, untouched but for a Stdin with Escapes,
// which is closed.
type SessionRequest struct {
	Command   string // "" starts a shell
	Subsystem bool   // Command is a subsystem's name

	TTY         bool
	TTYRequired bool // a refused pty fails Start
	// OnTTYRefused is called by Start when a pty was refused and the session goes on without.
	OnTTYRefused func()
	Term         string
	Modes        ssh.TerminalModes
	Window       Window

	Env          []string // NAME=value
	ForwardAgent bool

	Stdin          io.Reader // nil: EOF at once
	Stdout, Stderr io.Writer // nil: discarded
	// Escapes are taken out of Stdin where TTY is wanted; nil: there are none.
	Escapes *Escapes
	// LastWords is asked, when the session has ended without a status, for what is to be written to
	// Stderr before its end; nil has none.
	LastWords func() string
}

const (
	sessionChannel = "session" // RFC 4254 section 6.1

	eowRequest = "eow@openssh.com" // PROTOCOL of OpenSSH, section 2.1: no more is wanted
	exitStatus = "exit-status"     // RFC 4254 section 6.10
	exitSignal = "exit-signal"

	signalRequest = "signal" // RFC 4254 section 6.9

	// pumpBytes is the size of one copy: the largest packet that either side of x/crypto/ssh takes.
	pumpBytes = 32 << 10
)

// Session is one session channel (RFC 4254 section 6). Its owner calls Wait or Close in the end.
//
// Memory: three buffers of pumpBytes and one packet, and at most the channel's window (2 MiB, stdout
// and stderr together) of output that the local reader has not taken yet. What is beyond stays on
// the node, so a slow reader holds up its own channel and no other. With escapes one buffer more, and
// what was typed while the connection took nothing (typeaheadLimit).
type Session struct {
	client *Client
	ch     ssh.Channel

	closed     chan struct{} // closed when the channel has: by the peer, or with the connection
	wg         sync.WaitGroup
	ttyRefused atomic.Bool
	discarding atomic.Bool // output goes nowhere any more

	mu        sync.Mutex
	over      bool   // the channel has closed
	onClose   func() // called then
	relay     func(*ssh.Request)
	started   bool
	status    int
	hasStatus bool
	stdinOver bool // nothing more is read from stdin
	eow       bool // the peer reads no more: our EOF is pointless
	stdin     *stream
	stdout    *stream
	stderr    *stream
}

// OpenSession opens a session channel: one round trip. The error is an *ssh.OpenChannelError when
// the node refused it. When ctx ends first, the channel is closed as soon as it is open.
func (c *Client) OpenSession(ctx context.Context) (*Session, error) {
	type result struct {
		session *Session
		err     error
	}
	opened := make(chan result)
	if !c.track(func() {
		s, err := c.openSession()
		select {
		case opened <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				_ = s.Close()
				s.wg.Wait()
			}
		}
	}) {
		return nil, c.closedError()
	}
	select {
	case r := <-opened:
		return r.session, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Client) openSession() (*Session, error) {
	ch, reqs, err := c.conn.OpenChannel(sessionChannel, nil)
	if err != nil {
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return nil, refused
		}
		return nil, c.closedError()
	}
	s := &Session{client: c, ch: ch, closed: make(chan struct{})}
	s.wg.Go(func() { s.serveRequests(reqs) })
	return s, nil
}

// closedError returns why there is no connection any more. It waits for the reader to know: a write
// may fail before the read side has seen the end.
func (c *Client) closedError() error {
	c.wire.Close()
	<-c.done
	return c.Err()
}

// Start asks for what req describes and begins to move its streams. A refused request is a
// *RequestRefusedError; after any error the channel is closed.
func (s *Session) Start(ctx context.Context, req SessionRequest) error {
	s.mu.Lock()
	again := s.started
	s.started = true
	s.mu.Unlock()
	if again {
		return ErrSessionState
	}
	stopEscapes := s.beginEscapes(&req)
	err := s.await(ctx, func() error { return s.prepare(&req) })
	if err == nil {
		if s.TTYRefused() && req.OnTTYRefused != nil {
			req.OnTTYRefused()
		}
		err = s.await(ctx, func() error { return s.launch(&req) })
	}
	if err != nil {
		stopEscapes()
		_ = s.ch.Close()
		return err
	}
	s.pump(&req)
	return nil
}

// beginEscapes puts what takes the escapes out in Stdin's place. It reads at once: a user may want to end
// a session that isn't answered.
func (s *Session) beginEscapes(req *SessionRequest) (stop func()) {
	if !req.TTY || req.Escapes == nil || req.Stdin == nil {
		return func() {}
	}
	typed := newTypeahead(req.Stdin, req.Escapes.filter(s, req.Stderr))
	s.wg.Go(typed.fill)
	req.Stdin = typed
	return func() { _ = typed.Close() } // nothing is kept back
}

// await runs f, which may wait for the node, and gives up at the end of ctx or of the channel. An f
// left behind ends with the channel, which the caller then closes.
func (s *Session) await(ctx context.Context, f func() error) error {
	result := make(chan error, 1)
	s.wg.Go(func() { result <- f() })
	select {
	case err := <-result:
		if errors.Is(err, io.EOF) {
			return s.endedError()
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// endedError says why the channel has ended under a request: alone, or with its connection.
func (s *Session) endedError() error {
	if readErr, _ := s.client.wire.failure(); readErr != nil {
		return s.client.closedError()
	}
	return errors.New("sshproxy: the node closed the channel")
}

// prepare sends what comes before the command. Only a first pty-req waits for an answer.
func (s *Session) prepare(req *SessionRequest) error {
	if req.ForwardAgent && s.client.allowAgent() {
		if _, err := s.ch.SendRequest(agentRequest, false, nil); err != nil {
			return err
		}
	}
	if len(req.Env) > 0 {
		s.client.cfg.Logf(1, "Sending environment.")
	}
	for _, variable := range req.Env {
		name, value, found := strings.Cut(variable, "=")
		if !found {
			continue
		}
		s.client.cfg.Logf(1, "channel 0: setting env %s = %q", printable(name), printable(value))
		body := ssh.Marshal(struct{ Name, Value string }{name, value})
		if _, err := s.ch.SendRequest("env", false, body); err != nil {
			return err
		}
	}
	if req.TTY {
		return s.requestPTY(req)
	}
	return nil
}

// launch starts the command and waits for the node's word.
func (s *Session) launch(req *SessionRequest) error {
	kind, body := "exec", ssh.Marshal(struct{ Text string }{req.Command})
	switch {
	case req.Subsystem:
		kind = "subsystem"
		s.client.cfg.Logf(1, "Sending subsystem: %s", printable(req.Command))
	case req.Command == "":
		kind, body = "shell", nil
	default:
		s.client.cfg.Logf(1, "Sending command: %s", printable(req.Command))
	}
	accepted, err := s.ch.SendRequest(kind, true, body)
	if err == nil && !accepted {
		err = &RequestRefusedError{Request: kind}
	}
	return err
}

// serveRequests answers the node's requests on the channel until it closes.
func (s *Session) serveRequests(reqs <-chan *ssh.Request) {
	for req := range reqs {
		s.mu.Lock()
		relay := s.relay
		s.mu.Unlock()
		if relay != nil {
			relay(req)
			continue
		}
		known := s.serveRequest(req)
		if req.WantReply {
			_ = req.Reply(known, nil) // fails only when the channel has ended
		}
	}
	s.ended()
	s.stopStdin(false)
}

// ended tells all who wait for the channel's end.
func (s *Session) ended() {
	s.mu.Lock()
	s.over = true
	f := s.onClose
	s.mu.Unlock()
	close(s.closed)
	if f != nil {
		f()
	}
}

// relayTo hands the node's requests to f, replies included, for a channel that somebody else uses.
func (s *Session) relayTo(f func(*ssh.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relay = f
}

// whenClosed has f called when the channel has closed, at once if that is so already.
func (s *Session) whenClosed(f func()) {
	s.mu.Lock()
	over := s.over
	s.onClose = f
	s.mu.Unlock()
	if over {
		f()
	}
}

// serveRequest reports whether the request is one of ours to take. Others, such as the node's own
// keepalive@openssh.com, are refused, which is what their sender expects.
func (s *Session) serveRequest(req *ssh.Request) bool {
	switch req.Type {
	case exitStatus:
		s.client.cfg.Logf(1, "client_input_channel_req: channel 0 rtype %s reply 0", exitStatus)
		var body struct{ Status uint32 }
		if ssh.Unmarshal(req.Payload, &body) != nil {
			return false
		}
		s.mu.Lock()
		s.status, s.hasStatus = int(body.Status&0xff), true
		s.mu.Unlock()
	case exitSignal:
		// No status is the status: ssh ends with 255 and prints nothing.
		s.client.cfg.Logf(1, "client_input_channel_req: channel 0 rtype %s reply 0", exitSignal)
	case eowRequest:
		s.stopStdin(true)
	default:
		return false
	}
	return true
}

// Signal asks the node to send the command a signal, by its name without SIG (RFC 4254 section 6.9). It
// doesn't wait; sshd refuses it to subsystems and forced commands (session.c, session_signal_req).
func (s *Session) Signal(name string) {
	s.post(signalRequest, ssh.Marshal(struct{ Name string }{name}))
}

// TTYRefused reports that the pty asked for was refused and the session runs without one.
func (s *Session) TTYRefused() bool { return s.ttyRefused.Load() }

// Wait returns the exit status (0-255) once the channel has closed and its output is written. ok is
// false when there was none: death by signal, or the connection was lost.
func (s *Session) Wait() (status int, ok bool) {
	s.wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.hasStatus
}

// Lost returns why the connection below the session has ended when that was not by Close, else nil; see
// Client.Lost.
func (s *Session) Lost() error { return s.client.Lost() }

// Abandon lets go of the local side, whose client has died: stdin ends, output is discarded. The
// remote command lives on as it would under ssh. It does not wait for the node, but like every write
// it waits while the link takes nothing.
func (s *Session) Abandon() {
	s.letGo()
	_, _ = s.ch.SendRequest(eowRequest, false, nil) // fails only when the channel has ended
}

// Close closes the channel without waiting; what runs on the node gets what a vanished ssh gives it.
func (s *Session) Close() error {
	s.letGo()
	if err := s.ch.Close(); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("closing channel: %w", err)
	}
	return nil
}

// discard ends a channel that is of no use and waits for it.
func (s *Session) discard() {
	_ = s.Close() // fails only when it has ended
	<-s.closed
	s.wg.Wait()
}
