package sshproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// clientVersion is our line of RFC 4253 section 4.2.
const clientVersion = "SSH-2.0-ssm-ssh"

// Client is one authenticated SSH connection.
type Client struct {
	// Fixed at birth.
	cfg     Config
	wire    *wire
	conn    ssh.Conn
	hostKey ssh.PublicKey               // that the node has shown
	changed bool                        // it did not match and was let through
	learns  bool                        // it may introduce the node's other keys
	settle  chan chan (<-chan struct{}) // asks serveRequests what it has begun, after what has come so far
	done    chan struct{}               // closed when the connection has ended and err is set
	wg      sync.WaitGroup

	ptyGranted   atomic.Bool  // the node has granted a pty once (decides whether to wait for the next)
	agentAllowed atomic.Bool  // a session has asked for agent forwarding
	sessions     atomic.Int32 // started sessions that have not ended; channels kept in reserve do not count

	mu       sync.Mutex
	handlers map[string]func(ssh.NewChannel)
	closing  bool  // Close has begun to wait: no goroutine may join
	err      error // why the connection ended; the first to know sets it
}

// NewClient performs the SSH handshake over conn, checks the host key and authenticates. The end of
// ctx closes conn; so does every error.
func NewClient(ctx context.Context, conn net.Conn, cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	c := &Client{
		cfg:      cfg,
		wire:     newWire(conn, cfg.ConnectTimeout),
		done:     make(chan struct{}),
		settle:   make(chan chan (<-chan struct{})),
		handlers: make(map[string]func(ssh.NewChannel)),
	}
	stop := context.AfterFunc(ctx, func() { c.wire.Close() })
	chans, reqs, err := c.handshake(ctx)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.wire.Close()
		return nil, c.handshakeError(ctx, err)
	}
	c.start(chans, reqs)
	return c, nil
}

// handshake runs key exchange and authentication in the caller's goroutine.
func (c *Client) handshake(ctx context.Context) (<-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	transport, err := c.cfg.transportConfig()
	if err != nil {
		return nil, nil, err
	}
	checker := newHostKeyChecker(ctx, &c.cfg)
	algorithms, err := checker.algorithms()
	if err != nil {
		return nil, nil, err
	}
	auth := newAuthenticator(ctx, &c.cfg, c.wire)
	defer auth.close()

	c.cfg.Logf(1, "Local version string %s", clientVersion)
	conn, chans, reqs, err := ssh.NewClientConn(c.wire, c.cfg.Host, &ssh.ClientConfig{
		Config:            transport,
		User:              c.cfg.User,
		ClientVersion:     clientVersion,
		HostKeyAlgorithms: algorithms,
		HostKeyCallback: func(host string, addr net.Addr, key ssh.PublicKey) error {
			if c.hostKey == nil { // it is shown again whenever keys are renewed
				c.hostKey = key
				sayHostKey(&c.cfg, key)
			}
			return checker.check(host, addr, key)
		},
		AuthCallback:   auth.next,
		BannerCallback: c.banner,
	})
	if err != nil {
		return nil, nil, err
	}
	c.conn, c.changed = conn, checker.changed
	c.learns = checker.vouches && c.cfg.updatesHostKeys()
	sayAuthenticated(&c.cfg, auth.current)
	return chans, reqs, nil
}

// another is what makes more connections to the same server; nil where none are to be had.
func (c *Client) another() func(context.Context) (connection, error) {
	if c.cfg.Another == nil {
		return nil
	}
	return func(ctx context.Context) (connection, error) {
		other, err := c.again(ctx)
		if err != nil {
			c.cfg.Logf(1, "another connection: %v", err)
			return nil, err
		}
		c.cfg.Logf(1, "another connection for more sessions")
		return other, nil
	}
}

// again makes one more connection to the same server as the same user. Nobody is asked anything, and
// nothing is shown: its host key must be this connection's, and a key of the user's must do without a
// passphrase.
func (c *Client) again(ctx context.Context) (*Client, error) {
	conn, err := c.cfg.Another(ctx)
	if err != nil {
		return nil, err
	}
	cfg := c.cfg
	cfg.hostKey = c.hostKey
	if m, ok := c.conn.(ssh.AlgorithmsConnMetadata); ok { // the server may have keys of other types
		cfg.HostKeyAlgorithms, cfg.HostKeyAlgorithmsFixed = []string{m.Algorithms().HostKey}, true
	}
	cfg.BatchMode, cfg.Prompt, cfg.Verbose = true, nobody{}, false
	cfg.Logf = func(level int, format string, args ...any) { c.cfg.Logf(max(level, 1), format, args...) }
	return NewClient(ctx, conn, cfg)
}

// banner shows the node's banner (RFC 4252 section 5.4). It is no line of the log and keeps its line
// ends (sshconnect2.c, input_userauth_banner).
func (c *Client) banner(message string) error {
	if c.cfg.Banner != nil {
		_, _ = io.WriteString(c.cfg.Banner, terminalSafe(message, c.cfg.UTF8)) // nobody to show it to is no reason to go
	}
	return nil
}

// start begins the goroutines that serve the connection; each ends with it.
func (c *Client) start(chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
	c.handlers[agentChannel] = c.forwardAgent
	c.wg.Go(func() { c.serveRequests(reqs) })
	c.wg.Go(func() { c.serveChannels(chans) })
	c.wg.Go(func() {
		c.fail(c.lostError(c.conn.Wait()))
		close(c.done)
	})
	c.startKeepAlive()
}

// serveRequests answers global requests. All but the node's host keys are refused: that is also the answer by
// which the peer's own keepalive@openssh.com learns that we live.
func (c *Client) serveRequests(reqs <-chan *ssh.Request) {
	var updated chan struct{} // closed when the host keys are settled; nil: there were none to settle
	serve := func(req *ssh.Request) {
		first := updated == nil && c.learns && req.Type == hostKeysRequest
		if first {
			updated = make(chan struct{})
			c.track(func() {
				defer close(updated)
				c.updateHostKeys(req.Payload)
			})
		}
		if req.WantReply {
			// An error means that the connection has ended, which closes reqs too.
			_ = req.Reply(first, nil)
		}
	}
	for {
		select {
		case req, ok := <-reqs:
			if !ok {
				return
			}
			serve(req)
		case reply := <-c.settle:
			for len(reqs) > 0 {
				serve(<-reqs)
			}
			reply <- updated
		}
	}
}

// serveChannels hands each channel that the peer opens to its handler.
func (c *Client) serveChannels(chans <-chan ssh.NewChannel) {
	for nc := range chans {
		c.mu.Lock()
		h := c.handlers[nc.ChannelType()]
		c.mu.Unlock()
		if h == nil {
			c.cfg.Logf(1, "refused a channel of type %q", nc.ChannelType())
			_ = nc.Reject(ssh.UnknownChannelType, "unknown channel type")
			continue
		}
		c.track(func() { h(nc) })
	}
}

// Conn returns the connection for forwards and other channels. Its Close is the Client's.
func (c *Client) Conn() ssh.Conn { return c.conn }

// HandleChannels has h called for every channel of the given type that the peer opens, in a
// goroutine that Close waits for; h accepts or rejects it and returns when done with it. A nil h
// refuses the type again.
func (c *Client) HandleChannels(channelType string, h func(ssh.NewChannel)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers[channelType] = h
}

// HostKeyChanged reports that the host key did not match and was let through all the same
// (StrictHostKeyChecking no): the caller must then grant no forwarding.
func (c *Client) HostKeyChanged() bool { return c.changed }

// NetConn returns the connection that was given to NewClient. Who reads or writes it breaks this one.
func (c *Client) NetConn() net.Conn { return c.wire.Conn }

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended: net.ErrClosed after Close, a *TextError where OpenSSH has a
// text; nil while it lives.
func (c *Client) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Lost returns why the connection has ended when that was not by Close, else nil. Unlike Err it also
// knows what is just being found out, as when a session has ended without a status, and waits for
// the reason.
func (c *Client) Lost() error {
	c.mu.Lock()
	err := c.err
	c.mu.Unlock()
	if readErr, _ := c.wire.failure(); err == nil && readErr != nil {
		err = c.closedError()
	}
	if err == net.ErrClosed { // as it is: a cause may wrap it
		return nil
	}
	return err
}

// Close ends the connection and waits for the goroutines that served it, not for its sessions.
func (c *Client) Close() error {
	c.fail(net.ErrClosed)
	err := c.wire.Close()
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// track runs f in a goroutine that Close waits for; after Close it runs nothing and returns false.
func (c *Client) track(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.wg.Go(f)
	return true
}

// end closes the connection for a reason found on this side.
func (c *Client) end(err error) {
	c.fail(err)
	c.wire.Close()
}

// fail records why the connection ends; the first reason stays.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}
