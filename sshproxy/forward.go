package sshproxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// ForwardKind says who listens for a forward's connections.
type ForwardKind int

// The kinds of ssh's -L, -R and -D.
const (
	ForwardLocal ForwardKind = muxForwardLocal + iota
	ForwardRemote
	ForwardDynamic
)

// Endpoint is an address, or a Unix socket's path. Of an address to listen on, an empty host means the
// loopback (with GatewayPorts any address, unless it is the node that listens), "*" any address.
type Endpoint struct {
	Host string
	Port int
	Path string // takes the place of the other two
}

func (e Endpoint) String() string {
	if e.Path != "" {
		return e.Path
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(e.Port))
}

// valid refuses ports that no message can carry, and NUL bytes: sshd ends the whole connection over
// one (sshbuf-getput-basic.c, sshbuf_get_cstring).
func (e Endpoint) valid() bool {
	return e.Port >= 0 && e.Port <= 65535 && strings.IndexByte(e.Host+e.Path, 0) < 0
}

// nowhere reports that e isn't something to connect to.
func (e Endpoint) nowhere() bool { return e.Path == "" && e.Port == 0 }

// Forward is one forward. Connect is empty for ForwardDynamic, and for a remote one that speaks SOCKS.
type Forward struct {
	Kind            ForwardKind
	Listen, Connect Endpoint
}

// ForwardConfig says how forwards listen and where they may go.
type ForwardConfig struct {
	AddressFamily         string // of the addresses listened on: any (also ""), inet, inet6
	GatewayPorts          bool
	StreamLocalBindMask   os.FileMode // of a local socket; 0 means 0177
	StreamLocalBindUnlink bool
	// PermitRemoteOpen lists where a remote forward that speaks SOCKS may connect: host:port with "*"
	// for any of either, or "none" alone; "any" alone and an empty list permit all.
	PermitRemoteOpen []string
	Logf             func(level int, format string, args ...any)
}

var (
	errForwardInvalid  = errors.New("sshproxy: no forward can be like this")
	errForwardNotThere = errors.New("sshproxy: port not forwarded")
)

// Forwarder runs a connection's forwards; a Client has one at most. It owns their listeners and the
// connections through them.
//
// Goroutines: one for each address that is listened on, until the forward is cancelled; for each
// connection through a forward one each way, until both its sides have ended, and one for the
// channel's requests. Stop ends and Close waits for all of them (the Client for the last, and for those
// that began with a channel of the node's). Each direction of a connection has a buffer of 32 KiB,
// besides the channel's window (see Session).
type Forwarder struct {
	client *Client
	cfg    ForwardConfig
	life   context.Context // ended by Stop
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	hold    func() (release func()) // keeps the master alive while a connection is open
	closed  bool
	entries map[Forward]*forwardEntry
	open    map[io.Closer]string // the local sides of the connections under way, and what each is
	numbers int                  // channels so far, for the log
}

// forwardEntry is a forward that is there, or comes or goes.
type forwardEntry struct {
	// turn is held while the forward is opened or ended, the node's answer included, so that those
	// who want the same at once wait for the first.
	turn sync.Mutex

	// Guarded by Forwarder.mu; only the holder of turn changes the rest.
	callers   int // that hold turn or wait for it
	users     int // Opens that were not released; without any the forward is not there
	port      int // that is listened on
	asked     bool
	listeners []net.Listener
}

// NewForwarder returns a Forwarder for the client's connection; the caller closes it.
func NewForwarder(client *Client, cfg ForwardConfig) *Forwarder {
	if cfg.Logf == nil {
		cfg.Logf = func(int, string, ...any) {}
	}
	if cfg.StreamLocalBindMask == 0 {
		cfg.StreamLocalBindMask = 0o177
	}
	f := &Forwarder{
		client: client, cfg: cfg,
		hold:    func() func() { return func() {} },
		entries: make(map[Forward]*forwardEntry),
		open:    make(map[io.Closer]string),
	}
	f.life, f.cancel = context.WithCancel(context.Background())
	client.HandleChannels(forwardedTCP, f.acceptTCP)
	client.HandleChannels(forwardedStream, f.acceptStream)
	return f
}

// holdWith sets what keeps a master alive while a connection is open.
func (f *Forwarder) holdWith(hold func() (release func())) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hold = hold
}

// held runs relaying under a hold.
func (f *Forwarder) held(relaying func()) {
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	defer hold()()
	relaying()
}

// Open begins a forward and returns the port that is listened on: the one asked for, or the one that
// was chosen for port 0. A forward that is there already is used together, with the same port. An error
// that OpenSSH has words for is a *TextError: of a local forward its lines on stderr, of a remote one
// the master's reason, which on the command line follows "Warning: " or "Error: " (ssh.c,
// ssh_confirm_remote_forward). Open waits for the node, but no longer than the Client lives.
func (f *Forwarder) Open(fwd Forward) (port int, err error) {
	if f.client.HostKeyChanged() {
		return 0, errUntrusted
	}
	fwd, err = fwd.settled()
	if err != nil {
		return 0, err
	}
	e, unlock := f.take(fwd)
	defer unlock()
	if e.users == 0 {
		if err := f.begin(fwd, e); err != nil {
			return 0, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, net.ErrClosed
	}
	e.users++
	return e.port, nil
}

// settled returns the one form of a forward, and refuses what none can be (mux.c,
// mux_master_process_open_fwd). A remote forward to port 0 speaks SOCKS, whatever the host
// (channels.c, channel_connect_by_listen_address).
func (fwd Forward) settled() (Forward, error) {
	if fwd.Listen.Path != "" {
		fwd.Listen = Endpoint{Path: fwd.Listen.Path}
	}
	switch {
	case fwd.Connect.Path != "":
		fwd.Connect = Endpoint{Path: fwd.Connect.Path}
	case fwd.Kind == ForwardDynamic, fwd.Kind == ForwardRemote && fwd.Connect.nowhere():
		fwd.Connect = Endpoint{}
	}
	switch {
	case fwd.Kind < ForwardLocal || fwd.Kind > ForwardDynamic,
		!fwd.Listen.valid(), !fwd.Connect.valid(),
		fwd.Kind == ForwardLocal && fwd.Connect.nowhere(),
		fwd.Kind == ForwardDynamic && (fwd.Listen.Path != "" || fwd.Connect.Path != ""):
		return Forward{}, errForwardInvalid
	}
	return fwd, nil
}

// take returns the entry of a forward, for this caller alone until unlock.
func (f *Forwarder) take(fwd Forward) (e *forwardEntry, unlock func()) {
	f.mu.Lock()
	e = f.entries[fwd]
	if e == nil {
		e = &forwardEntry{}
		f.entries[fwd] = e
	}
	e.callers++
	f.mu.Unlock()
	e.turn.Lock()
	return e, func() {
		e.turn.Unlock()
		f.mu.Lock()
		defer f.mu.Unlock()
		if e.callers--; e.callers == 0 && e.users == 0 {
			delete(f.entries, fwd)
		}
	}
}

// await returns when the present holder of the turn is done.
func (e *forwardEntry) await() {
	e.turn.Lock()
	defer e.turn.Unlock()
}

func (f *Forwarder) begin(fwd Forward, e *forwardEntry) error {
	if fwd.Kind == ForwardRemote {
		return f.openRemote(fwd, e)
	}
	return f.openLocal(fwd, e)
}

// Cancel ends a forward for all who use it. Connections through it go on.
func (f *Forwarder) Cancel(fwd Forward) error { return f.drop(fwd, true) }

// CancelListening ends the forward of a kind that listens at an endpoint, wherever it leads, as Cancel does
// (clientloop.c, process_cmdline: -KL and the others name nothing more).
func (f *Forwarder) CancelListening(kind ForwardKind, at Endpoint) error {
	f.mu.Lock()
	var found []Forward
	for fwd := range f.entries {
		if fwd.Kind == kind && f.sameListener(kind, fwd.Listen, at) {
			found = append(found, fwd)
		}
	}
	f.mu.Unlock()
	err := errForwardNotThere
	for _, fwd := range found {
		err = f.Cancel(fwd)
	}
	return err
}

// sameListener tells whether two endpoints are the same to listen on (channels.c, channel_fwd_bind_addr).
func (f *Forwarder) sameListener(kind ForwardKind, a, b Endpoint) bool {
	for _, e := range []*Endpoint{&a, &b} {
		switch {
		case e.Path != "":
			*e = Endpoint{Path: e.Path}
		case kind == ForwardRemote, e.Host != "":
		case f.cfg.GatewayPorts:
			e.Host = "*"
		default:
			e.Host = "localhost"
		}
	}
	return a == b
}

// StopListening closes all listeners on this side; connections through them go on.
func (f *Forwarder) StopListening() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.entries {
		closeListeners(e.listeners)
	}
}

// Release ends one use of a forward, and the forward with the last.
func (f *Forwarder) Release(fwd Forward) { _ = f.drop(fwd, false) } // it may have been cancelled

func (f *Forwarder) drop(fwd Forward, all bool) error {
	fwd, err := fwd.settled()
	if err != nil {
		return errForwardNotThere
	}
	e, unlock := f.take(fwd)
	defer unlock()
	if e.users == 0 {
		return errForwardNotThere
	}
	f.mu.Lock()
	e.users--
	if all {
		e.users = 0
	}
	if e.users > 0 {
		f.mu.Unlock()
		return nil
	}
	listeners := e.listeners
	e.listeners, e.asked = nil, false
	f.mu.Unlock()
	closeListeners(listeners)
	if fwd.Kind == ForwardRemote {
		return f.cancelRemote(fwd, e.port)
	}
	return nil
}

// closeListeners ends them; nobody connects any more either way.
func closeListeners(listeners []net.Listener) {
	for _, l := range listeners {
		_ = l.Close()
	}
}

// Stop ends all forwards and the connections through them. It doesn't wait: the node may not answer
// before the Client is closed.
func (f *Forwarder) Stop() {
	f.client.HandleChannels(forwardedTCP, nil)
	f.client.HandleChannels(forwardedStream, nil)
	f.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, e := range f.entries {
		closeListeners(e.listeners)
	}
	for c := range f.open {
		_ = c.Close() // its relay ends either way
	}
}

// Close does what Stop does and waits for the goroutines. Where the node may have gone, the Client is
// to be closed in between.
func (f *Forwarder) Close() {
	f.Stop()
	f.wg.Wait()
}

// Connections names those under way.
func (f *Forwarder) Connections() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Values(f.open))
}

// during runs serve while c is noted as open, so that Close can close it and wait.
func (f *Forwarder) during(c io.Closer, what string, serve func()) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		_ = c.Close() // nothing was sent
		return
	}
	f.open[c] = what
	f.wg.Add(1)
	f.mu.Unlock()
	defer f.wg.Done()
	serve()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, c)
}
