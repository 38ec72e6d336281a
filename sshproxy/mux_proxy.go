package sshproxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Proxy mode (PROTOCOL.mux section 10): after C_PROXY the control connection carries SSH's own
// connection-layer packets, in plain: length, a padding byte of 0, type, payload. Types are RFC 4254's.
const (
	packetGlobalRequest  = 80
	packetRequestFailure = 82
	packetOpen           = 90
	packetOpenConfirm    = 91
	packetOpenFailure    = 92
	packetWindowAdjust   = 93
	packetData           = 94
	packetExtendedData   = 95
	packetEOF            = 96
	packetClose          = 97
	packetRequest        = 98
	packetSuccess        = 99
	packetFailure        = 100

	// proxyWindow is how much a client may send before the node has taken it, for each channel. It
	// bounds what a channel's queue holds.
	proxyWindow = 256 << 10

	// proxyPacket is the largest packet that we ask for and that we send (RFC 4253 section 6.1).
	proxyPacket = 32 << 10

	// proxyChannelLimit and proxyRequestLimit bound what one client may have under way.
	proxyChannelLimit = 1024
	proxyRequestLimit = 1024
)

// appendPacket appends a packet with its length.
func appendPacket(b []byte, kind byte, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(2+len(payload)))
	return append(append(b, 0, kind), payload...)
}

// decodePacket takes a frame of proxy mode apart.
func decodePacket(frame []byte) (kind byte, payload []byte, err error) {
	if len(frame) < 2 {
		return 0, nil, errMalformed
	}
	return frame[1], frame[2:], nil
}

// muxProxyServer is one client in proxy mode. The control connection's reader runs it. Each channel
// has four goroutines: its worker, which opens it and does in order what the client asks; one for
// each stream of the node's; and one for the node's requests. serve waits for all of them.
type muxProxyServer struct {
	server *muxServer
	wg     sync.WaitGroup

	mu       sync.Mutex
	over     bool
	channels map[uint32]*proxyChannel
	numbers  uint32
}

// serveProxy turns the connection over to proxy mode until its end.
func (s *muxServer) serveProxy(ctx context.Context, id uint32) error {
	if !s.master.allowed(ctx, questionProxy) {
		return s.deny(id)
	}
	if err := s.conn.send(&plainMessage{Kind: muxProxyOK, ID: id}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &muxProxyServer{server: s, channels: make(map[uint32]*proxyChannel)}
	err := p.converse(ctx)
	cancel()
	p.end()
	s.conn.Close() // a worker may be writing to it
	p.wg.Wait()
	return err
}

func (p *muxProxyServer) converse(ctx context.Context) error {
	for {
		frame, err := p.server.conn.receive()
		if err != nil {
			return err
		}
		kind, payload, err := decodePacket(frame)
		if err != nil {
			return err
		}
		if err := p.handle(ctx, kind, payload); err != nil {
			return err
		}
	}
}

// send writes one packet. An error is the connection's end, which its reader sees too.
func (p *muxProxyServer) send(kind byte, body any) {
	c := p.server.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.Write(appendPacket(nil, kind, ssh.Marshal(body)))
}

// end has all channels closed.
func (p *muxProxyServer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for _, c := range p.channels {
		c.abandon()
	}
}

// openBody is RFC 4254 section 5.1's SSH_MSG_CHANNEL_OPEN.
type openBody struct {
	Kind                      string
	Sender, Window, MaxPacket uint32
	Extra                     []byte `ssh:"rest"`
}

// channelBody begins every packet about an open channel.
type channelBody struct {
	Recipient uint32
	Rest      []byte `ssh:"rest"`
}

// handle does what one packet of the client's asks for; an error ends the connection.
func (p *muxProxyServer) handle(ctx context.Context, kind byte, payload []byte) error {
	switch {
	case kind == packetGlobalRequest:
		// None reaches the node: what it changes there would concern all clients.
		var body struct {
			Name string
			Want bool
			Rest []byte `ssh:"rest"`
		}
		if err := ssh.Unmarshal(payload, &body); err != nil {
			return errMalformed
		}
		if body.Want {
			p.send(packetRequestFailure, struct{}{})
		}
		return nil
	case kind == packetOpen:
		var body openBody
		if err := ssh.Unmarshal(payload, &body); err != nil {
			return errMalformed
		}
		return p.open(ctx, &body)
	case kind < packetOpen || kind > packetFailure:
		return fmt.Errorf("%w: packet of type %d", errMalformed, kind)
	}
	var body channelBody
	if err := ssh.Unmarshal(payload, &body); err != nil {
		return errMalformed
	}
	p.mu.Lock()
	c := p.channels[body.Recipient]
	p.mu.Unlock()
	if c == nil {
		return fmt.Errorf("%w: packet for channel %d", errMalformed, body.Recipient)
	}
	return c.handle(kind, body.Rest)
}

// open begins a channel under a number of ours.
func (p *muxProxyServer) open(ctx context.Context, body *openBody) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.channels) >= proxyChannelLimit {
		return fmt.Errorf("%w: too many channels", errMalformed)
	}
	c := &proxyChannel{proxy: p, number: p.numbers, peer: body.Sender, credit: body.Window,
		maxPacket: min(body.MaxPacket, proxyPacket), room: proxyWindow}
	c.changed.L = &c.mu
	p.numbers++
	p.channels[c.number] = c
	p.wg.Go(func() {
		c.run(ctx, body.Kind, body.Extra)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.channels, c.number)
	})
	return nil
}
