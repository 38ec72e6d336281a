package sshproxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Proxied turns the control connection into a Client of the master's connection by proxy mode
// (PROTOCOL.mux section 10), whose channels need no descriptors to be passed. It owns the control
// connection from then on; after an error the caller still does. Of cfg only what concerns a living
// connection counts. The master takes no global requests from it, so there are no remote forwards and no
// keepalives of one's own.
func (c *MuxClient) Proxied(ctx context.Context, cfg Config) (*Client, error) {
	reply, err := c.request(ctx, &plainMessage{Kind: muxProxy, ID: c.id}, wordsProxy)
	if err != nil {
		return nil, err
	}
	if _, err := expect(reply, muxProxyOK); err != nil {
		return nil, &TextError{Text: wordsProxy.read, Err: err}
	}
	c.conn.in.Close() // a master passes no descriptors
	cfg.ServerAliveInterval, cfg.ChannelKeepAlive = 0, 0
	client := &Client{
		cfg: cfg.withDefaults(), wire: newWire(c.conn.UnixConn, 0),
		done: make(chan struct{}), handlers: make(map[string]func(ssh.NewChannel)),
	}
	client.wire.kex.done = true       // the key exchange was the master's
	over := make(chan ssh.NewChannel) // the node's channels don't come this way
	proxied := &proxiedConn{wire: client.wire, channels: make(map[uint32]*proxiedChannel), over: over, reqs: make(chan *ssh.Request)}
	client.conn = proxied
	client.start(over, proxied.reqs)
	return client, nil
}

// proxiedConn is an SSH connection whose packets go through a control connection. Wait is its reader.
type proxiedConn struct {
	wire net.Conn
	over chan ssh.NewChannel // closed at the end, as reqs
	reqs chan *ssh.Request

	sending sync.Mutex // a packet is written in one piece

	mu       sync.Mutex
	ended    bool
	channels map[uint32]*proxiedChannel
	next     uint32
}

var _ ssh.Conn = (*proxiedConn)(nil)

// The handshake was another's.
func (p *proxiedConn) User() string          { return "" }
func (p *proxiedConn) SessionID() []byte     { return nil }
func (p *proxiedConn) ClientVersion() []byte { return []byte(clientVersion) }
func (p *proxiedConn) ServerVersion() []byte { return nil }
func (p *proxiedConn) RemoteAddr() net.Addr  { return p.wire.RemoteAddr() }
func (p *proxiedConn) LocalAddr() net.Addr   { return p.wire.LocalAddr() }
func (p *proxiedConn) Close() error          { return p.wire.Close() }

// SendRequest asks nothing: OpenSSH's master drops most global requests without an answer.
func (p *proxiedConn) SendRequest(string, bool, []byte) (bool, []byte, error) { return false, nil, nil }

// send writes one packet.
func (p *proxiedConn) send(kind byte, body any) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	_, err := p.wire.Write(appendPacket(nil, kind, ssh.Marshal(body)))
	return err
}

// OpenChannel returns when the node has answered. A refusal is an *ssh.OpenChannelError.
func (p *proxiedConn) OpenChannel(kind string, extra []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	c := newProxiedChannel(p)
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return nil, nil, io.EOF
	}
	c.number = p.next
	p.next++
	p.channels[c.number] = c
	p.mu.Unlock()
	if err := p.send(packetOpen, openBody{kind, c.number, proxiedWindow, proxyPacket, extra}); err != nil {
		p.forget(c)
		return nil, nil, err
	}
	if err := <-c.opened; err != nil {
		p.forget(c)
		return nil, nil, err
	}
	return c, c.reqs, nil
}

func (p *proxiedConn) forget(c *proxiedChannel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.channels, c.number)
}

// Wait reads until the connection's end and returns why that came.
func (p *proxiedConn) Wait() error {
	err := p.read()
	_ = p.wire.Close() // a master that breaks the protocol is left
	p.mu.Lock()
	p.ended = true
	for _, c := range p.channels {
		c.end(io.EOF)
	}
	p.mu.Unlock()
	close(p.over)
	close(p.reqs)
	return err
}

func (p *proxiedConn) read() error {
	for {
		frame, err := p.receive()
		if err != nil {
			return err
		}
		kind, payload, err := decodePacket(frame)
		if err != nil {
			return err
		}
		if err := p.handle(kind, payload); err != nil {
			return err
		}
	}
}

func (p *proxiedConn) receive() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(p.wire, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > muxFrameLimit {
		return nil, fmt.Errorf("packet of %d bytes is over the limit of %d", size, muxFrameLimit)
	}
	frame := make([]byte, size)
	_, err := io.ReadFull(p.wire, frame)
	return frame, err
}

// handle takes one packet. Channels that the node opens are refused, and global requests not answered,
// which in this direction none are.
func (p *proxiedConn) handle(kind byte, payload []byte) error {
	switch kind {
	case packetGlobalRequest:
		return nil
	case packetOpen:
		var body openBody
		if err := ssh.Unmarshal(payload, &body); err != nil {
			return errMalformed
		}
		return p.send(packetOpenFailure, struct {
			Peer, Reason   uint32
			Text, Language string
		}{body.Sender, uint32(ssh.UnknownChannelType), "unknown channel type", ""})
	}
	var body channelBody
	if err := ssh.Unmarshal(payload, &body); err != nil {
		return errMalformed
	}
	p.mu.Lock()
	c := p.channels[body.Recipient]
	p.mu.Unlock()
	if c == nil {
		return errMalformed
	}
	return c.handle(kind, body.Rest)
}
