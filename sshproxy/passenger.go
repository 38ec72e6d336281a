package sshproxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"ssm-ssh/internal/fdpass"
	"ssm-ssh/internal/tty"
)

// passenger is a session whose client has lent us its standard descriptors.
type passenger struct {
	server *muxServer
	req    newSessionMessage
	number uint32 // the session's on the wire
	modes  map[uint8]uint32

	in, out, errs *fdpass.Stream

	// The runner starts the session; the reader of the control connection and the master's end may
	// want it gone at any moment before or after.
	mu      sync.Mutex
	client  *Client  // whose channel it has; nil before
	session *Session // set once it has started
	fate    fate
}

// linkPoll is how often a client that has not begun yet looks for a lost link.
const linkPoll = 50 * time.Millisecond

// exitLost is the status of a session that the connection has failed (ssh(1), exit status).
const exitLost = 255

// fate is what became of the client.
type fate int

const (
	fateServed fate = iota
	fateGone        // it has died: the command lives on as it would under ssh
	fateEnded       // the master ends: so does the session
)

// newPassenger takes over three descriptors.
func newPassenger(s *muxServer, m *newSessionMessage, fds []int) (*passenger, error) {
	streams, err := s.streams(fds)
	if err != nil {
		return nil, err
	}
	p := &passenger{server: s, req: *m, number: s.master.nextSession(), in: streams[0], out: streams[1], errs: streams[2]}
	if m.TTY {
		// Before the answer: the client then puts its terminal into raw mode.
		_ = p.in.Control(func(fd int) { p.modes = tty.Modes(fd) }) // it is open
		if p.modes == nil {
			p.modes = tty.NoModes()
		}
	}
	return p, nil
}

// run opens the session's channel, runs the session and tells the client how it ended. The control
// connection is closed last: the client exits when it sees that.
func (p *passenger) run(ctx context.Context) {
	defer p.server.conn.Close()
	defer p.closeStreams()
	s, err := p.acquire(ctx)
	if err != nil {
		p.refuse(err)
		return
	}
	p.mu.Lock()
	p.client = s.client
	p.mu.Unlock()
	if err := p.server.conn.send(&numberMessage{Kind: muxSessionOpened, ID: p.req.ID, Number: p.number}); err != nil {
		s.discard() // nobody waits for it: nothing is run
		return
	}
	p.awaitRaw(ctx)
	if err := p.start(s); err != nil {
		p.explain(err, s)
		// The client is let go first: the channel's end may have to wait for a lost link.
		p.closeStreams()
		p.server.conn.Close()
		s.discard()
		return
	}
	if status, ok := s.Wait(); ok {
		// A client that has gone meanwhile needs no status.
		_ = p.server.conn.send(&numberMessage{Kind: muxExit, ID: p.number, Number: uint32(status)})
	}
}

// acquire waits for a session channel: for its turn as long as it takes, for a lost link as long as
// the client's ConnectTimeout. The error is ErrLinkDown then.
func (p *passenger) acquire(ctx context.Context) (*Session, error) {
	ctx, cancel := p.patiently(ctx)
	defer cancel(nil)
	if err := p.awaitLink(ctx); err != nil {
		return nil, err
	}
	return p.server.master.queue.acquire(ctx)
}

// awaitLink holds a client back while the link is lost: a command that was sent into the void would
// run when the link is back, and its user may have given up by then.
func (p *passenger) awaitLink(ctx context.Context) error {
	if !p.linkDown() {
		return nil
	}
	poll := time.NewTicker(linkPoll)
	defer poll.Stop()
	for p.linkDown() {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// patiently returns a context that ends with ErrLinkDown when the link has been lost for as long as
// the client's ConnectTimeout.
func (p *passenger) patiently(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	limit := p.server.patience
	if limit <= 0 {
		return ctx, cancel
	}
	p.server.wg.Go(func() {
		poll := time.NewTicker(linkPoll)
		defer poll.Stop()
		for up := time.Now(); ; {
			select {
			case now := <-poll.C:
				if !p.linkDown() {
					up = now
				} else if now.Sub(up) >= limit {
					cancel(ErrLinkDown)
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	return ctx, cancel
}

func (p *passenger) linkDown() bool { return p.server.master.client.cfg.LinkDown() }

const (
	// rawLimit is how long a client has to put its terminal into raw mode, and rawPoll how often that is
	// looked at.
	rawLimit = 250 * time.Millisecond
	rawPoll  = time.Millisecond
)

// awaitRaw has the client put its terminal into raw mode, which it does when it knows that its session's
// channel is open (mux.c, mux_client_request_session). To OpenSSH's master that leaves it a round trip; a
// command that we start on a channel in reserve might answer before, to a terminal that translates.
func (p *passenger) awaitRaw(ctx context.Context) {
	for until := time.Now().Add(rawLimit); p.req.TTY && time.Now().Before(until) && ctx.Err() == nil; pause(ctx, rawPoll) {
		cooked := false
		_ = p.in.Control(func(fd int) { cooked = tty.IsCooked(fd) }) // it is open
		if !cooked {
			return
		}
	}
}

// refuse answers a request whose channel could not be opened. When the connection has ended, the end
// of the control connection is the answer: the client may start over.
func (p *passenger) refuse(err error) {
	var refused *ssh.OpenChannelError
	switch {
	case errors.As(err, &refused):
		p.server.master.cfg.Logf(1, "session channel refused: %s", printable(refused.Message))
		_ = p.server.fail(p.req.ID, reasonRefusedByPeer) // the client may have gone
	case errors.Is(err, ErrLinkDown):
		// A refusal would have the client try a connection of its own, over the same lost network. So
		// to the protocol this is a session that has failed.
		p.explain(err, nil)
		_ = p.server.conn.send(&numberMessage{Kind: muxSessionOpened, ID: p.req.ID, Number: p.number})
		_ = p.server.conn.send(&numberMessage{Kind: muxExit, ID: p.number, Number: exitLost})
	}
}

// start asks for what the client wants. It isn't the client's to interrupt, since the node may have
// begun; the end of the connection is what bounds it, or the client's patience with a lost link.
func (p *passenger) start(s *Session) error {
	ctx, cancel := p.patiently(context.Background())
	defer cancel(nil)
	if err := s.Start(ctx, p.request(s)); err != nil {
		return err
	}
	p.mu.Lock()
	p.session = s
	f := p.fate
	p.mu.Unlock()
	p.settle(s, f)
	return nil
}

// request turns the client's message into a session's. A wish for X11 goes unheeded, as where the
// master's ForwardX11 is off: the session goes on without. The terminal is read here, by the master,
// from the descriptor that the client has lent (mux.c, mux_master_process_new_session).
func (p *passenger) request(s *Session) SessionRequest {
	cfg := &p.server.master.cfg
	req := SessionRequest{
		Command: p.req.Command, Subsystem: p.req.Subsystem,
		TTY: p.req.TTY, Term: p.req.Term, Modes: p.modes, OnTTYRefused: p.ttyRefused,
		Env:          append(filterEnv(p.req.Env, cfg.SendEnv), cfg.SetEnv...),
		ForwardAgent: p.req.Agent && cfg.ForwardAgent,
		Stdin:        p.in, Stdout: p.out, Stderr: p.errs,
		LastWords: func() string { return p.lastWords(s) },
	}
	if req.TTY && p.req.Escape != muxNoEscape {
		req.Escapes = &Escapes{Char: byte(p.req.Escape), Connections: p.server.master.Connections, End: p.cutOff}
	}
	if req.TTY {
		_ = p.in.Control(func(fd int) { req.Window = Window(tty.Size(fd)) }) // it is open
	}
	return req
}

// filterEnv returns the variables that a pattern of the master's SendEnv lets through.
func filterEnv(env, patterns []string) []string {
	var allowed []string
	for _, variable := range env {
		name, _, _ := strings.Cut(variable, "=")
		if slices.ContainsFunc(patterns, func(pattern string) bool { return matchPattern(pattern, name) }) {
			allowed = append(allowed, variable)
		}
	}
	return allowed
}

// ttyRefused tells the user and the client, which then leaves raw mode (mux.c, mux_tty_alloc_failed).
func (p *passenger) ttyRefused() {
	p.explain(&RequestRefusedError{Request: "pty-req"}, nil)
	_ = p.server.conn.send(&plainMessage{Kind: muxTTYFail, ID: p.number}) // the client may have gone
}

// explain writes to the client's stderr what was refused, or why the connection of s was lost; other
// errors show as a missing status.
func (p *passenger) explain(err error, s *Session) {
	var refused *RequestRefusedError
	text := ""
	switch {
	case errors.As(err, &refused):
		text = refused.Error() + "\r\n"
	case errors.Is(err, ErrLinkDown):
		text = p.words(err)
	case s != nil:
		text = p.lastWords(s)
	}
	if text != "" {
		_, _ = p.errs.Write([]byte(text)) // it may be closed
	}
}

// lastWords says why a session has ended without a status, where its connection was lost.
func (p *passenger) lastWords(s *Session) string {
	if err := s.Lost(); err != nil {
		return p.words(err)
	}
	return ""
}

// words is the line for an error of the connection with its end: a terminal may be in raw mode.
func (p *passenger) words(err error) string {
	if line := p.server.master.client.cfg.LastWords(err); line != "" {
		return line + "\r\n"
	}
	return ""
}

// ridesOnAnother reports whether the session is on another connection than the master's first.
func (p *passenger) ridesOnAnother() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client != nil && p.client != p.server.master.client
}

// clientGone lets the session go on without its client.
func (p *passenger) clientGone() { p.meet(fateGone) }

// cutOff lets the client go, whose user has asked for that. Its session is then one without a client.
func (p *passenger) cutOff() {
	p.closeStreams()
	p.server.conn.Close()
}

// abort ends the session.
func (p *passenger) abort() { p.meet(fateEnded) }

func (p *passenger) meet(f fate) {
	p.mu.Lock()
	p.fate = max(p.fate, f)
	s := p.session
	p.mu.Unlock()
	if s != nil {
		p.settle(s, f)
	}
}

// settle does to the session what became of its client. Without a client, a terminal's command is
// hung up, as sshd does when its channel closes; another sees the end of its input. When the master
// ends nothing is sent, which could block: the connection ends next.
func (p *passenger) settle(s *Session, f fate) {
	switch {
	case f == fateEnded:
		s.letGo()
	case f == fateGone && p.req.TTY:
		_ = s.Close() // fails only when it has ended
	case f == fateGone:
		s.Abandon()
	}
}

// signal passes a signal on, once there is a command.
func (p *passenger) signal(name string) {
	p.mu.Lock()
	s := p.session
	p.mu.Unlock()
	if s != nil {
		s.Signal(name)
	}
}

// windowChanged tells the node the present size of the client's terminal.
func (p *passenger) windowChanged() {
	p.mu.Lock()
	s := p.session
	p.mu.Unlock()
	if s == nil || !p.req.TTY || s.TTYRefused() {
		return
	}
	_ = p.in.Control(func(fd int) { s.WindowChange(Window(tty.Size(fd))) }) // a closed one has no size
}

func (p *passenger) closeStreams() {
	for _, s := range []*fdpass.Stream{p.in, p.out, p.errs} {
		_ = s.Close() // nothing is kept back in a descriptor
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was written through it
	}
}
