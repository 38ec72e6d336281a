package sshproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Channel types of RFC 4254 section 7 and of OpenSSH's PROTOCOL section 2.4.
const (
	directTCP       = "direct-tcpip"
	directStream    = "direct-streamlocal@openssh.com"
	forwardedTCP    = "forwarded-tcpip"
	forwardedStream = "forwarded-streamlocal@openssh.com"
)

// halfCloser is an end whose writing side closes alone.
type halfCloser interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// halfClosing returns c as it is when its writing side can be closed alone.
func halfClosing(c net.Conn) halfCloser {
	if h, ok := c.(halfCloser); ok {
		return h
	}
	return closeBoth{c}
}

// closeBoth is a connection that can't close one side alone.
type closeBoth struct{ net.Conn }

func (c closeBoth) CloseWrite() error { return c.Close() }

// relay copies both ways until both have ended, each end's EOF passed on by itself, or until the node
// has closed the channel. A broken local end is taken as OpenSSH does (nchan.c, chan_read_failed and
// chan_write_failed): what can't be read any more has ended; what can't be written is dropped while
// the other direction goes on. Both ends are closed when it returns.
func relay(local halfCloser, ch *forwardChannel) {
	var wg sync.WaitGroup
	up := make(chan struct{})
	wg.Go(func() {
		defer close(up)
		_, _ = io.Copy(ch, local)
		_ = ch.CloseWrite() // fails only when the channel has ended
	})
	if _, err := io.Copy(local, ch); err != nil {
		wg.Go(func() { _, _ = io.Copy(io.Discard, ch) })
	}
	_ = local.CloseWrite() // it may have gone meanwhile
	select {
	case <-up:
	case <-ch.closed:
	}
	_ = local.Close() // what had come is written
	_ = ch.Close()    // fails only when it has ended
	wg.Wait()
}

// forwardChannel is an open channel that knows when it has closed, which for its reader looks like EOF.
type forwardChannel struct {
	ssh.Channel
	closed chan struct{}
}

// watch takes charge of a channel: it is closed when ctx ends, and counts as open for ChannelKeepAlive
// until the node has closed it.
func (c *Client) watch(ctx context.Context, ch ssh.Channel, reqs <-chan *ssh.Request) (*forwardChannel, error) {
	f := &forwardChannel{Channel: ch, closed: make(chan struct{})}
	if !c.track(func() {
		c.sessions.Add(1)
		defer c.sessions.Add(-1)
		defer close(f.closed)
		f.serveRequests(ctx, reqs)
	}) {
		_ = ch.Close() // it has ended with the connection
		return nil, c.closedError()
	}
	return f, nil
}

// serveRequests refuses a channel's requests, of which forwards have none, until the channel closes.
func (f *forwardChannel) serveRequests(ctx context.Context, reqs <-chan *ssh.Request) {
	ended := ctx.Done()
	for {
		select {
		case req, open := <-reqs:
			if !open {
				return
			}
			if req.WantReply {
				_ = req.Reply(false, nil) // fails only when the channel has ended, which ends reqs too
			}
		case <-ended:
			ended = nil
			_ = f.Close() // as above
		}
	}
}

// openDirect asks the node to connect to an endpoint, for a connection from an address that may be
// nil. The end of ctx closes the channel. A refusal is an *ssh.OpenChannelError.
func (c *Client) openDirect(ctx context.Context, to Endpoint, from net.Addr) (*forwardChannel, error) {
	kind, body := directTCP, []byte(nil)
	if to.Path != "" {
		kind = directStream
		body = ssh.Marshal(struct {
			Path, Reserved string
			ReservedPort   uint32
		}{Path: to.Path})
	} else {
		host, port := originator(from)
		body = ssh.Marshal(struct {
			Host           string
			Port           uint32
			OriginatorHost string
			OriginatorPort uint32
		}{to.Host, uint32(to.Port), host, port})
	}
	ch, reqs, err := c.conn.OpenChannel(kind, body)
	if err != nil {
		var refused *ssh.OpenChannelError
		if errors.As(err, &refused) {
			return nil, refused
		}
		return nil, c.closedError()
	}
	return c.watch(ctx, ch, reqs)
}

// originator names who connected. What isn't an address is 127.0.0.1 port 65535, as in OpenSSH
// (channels.c, port_open_helper).
func originator(from net.Addr) (string, uint32) {
	if tcp, ok := from.(*net.TCPAddr); ok {
		return tcp.IP.String(), uint32(tcp.Port)
	}
	return "127.0.0.1", 65535
}

// refusalText is a refusal as OpenSSH has it (channels.c, reason2txt).
func refusalText(e *ssh.OpenChannelError) string {
	reasons := map[ssh.RejectionReason]string{
		ssh.Prohibited: "administratively prohibited", ssh.ConnectionFailed: "connect failed",
		ssh.UnknownChannelType: "unknown channel type", ssh.ResourceShortage: "resource shortage",
	}
	text := reasons[e.Reason]
	if text == "" {
		text = "unknown reason"
	}
	if e.Message != "" {
		text += ": " + printable(e.Message)
	}
	return text
}
