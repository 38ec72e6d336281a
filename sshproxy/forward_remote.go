package sshproxy

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Global requests of RFC 4254 section 7.1 and of OpenSSH's PROTOCOL section 2.4.
const (
	requestTCP    = "tcpip-forward"
	cancelTCP     = "cancel-tcpip-forward"
	requestStream = "streamlocal-forward@openssh.com"
	cancelStream  = "cancel-streamlocal-forward@openssh.com"
)

// streamForward is the body of requestStream and cancelStream, tcpForward that of the other two.
type (
	streamForward struct{ Path string }
	tcpForward    struct {
		Host string
		Port uint32
	}
)

// openRemote asks the node to listen. The forward is known before the node answers: its first
// connection may come with the answer.
func (f *Forwarder) openRemote(fwd Forward, e *forwardEntry) error {
	if err := f.setRemote(e, true, fwd.Listen.Port); err != nil {
		return err
	}
	port, err := f.requestRemote(fwd.Listen)
	if err != nil {
		_ = f.setRemote(e, false, 0) // it was never there
		return err
	}
	return f.setRemote(e, true, port)
}

func (f *Forwarder) setRemote(e *forwardEntry, asked bool, port int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.asked, e.port = asked, port
	if f.closed {
		return net.ErrClosed // the node's listener ends with the connection
	}
	return nil
}

// requestRemote returns the port that the node listens on; 0 for a path.
func (f *Forwarder) requestRemote(at Endpoint) (port int, err error) {
	kind, body := requestTCP, ssh.Marshal(tcpForward{remoteBind(at.Host), uint32(at.Port)})
	if at.Path != "" {
		kind, body = requestStream, ssh.Marshal(streamForward{at.Path})
	}
	ok, reply, err := f.client.conn.SendRequest(kind, true, body)
	switch {
	case err != nil:
		return 0, f.client.closedError()
	case !ok:
		return 0, &TextError{Text: remoteFailedText(at)}
	case at.Path != "" || at.Port != 0:
		return at.Port, nil
	}
	var allocated struct{ Port uint32 }
	if err := ssh.Unmarshal(reply, &allocated); err != nil || allocated.Port == 0 || allocated.Port > 65535 {
		return 0, &TextError{Text: remoteFailedText(at), Err: errors.New("remote forward: the node named no port")}
	}
	return int(allocated.Port), nil
}

// remoteFailedText has the words of mux.c, mux_confirm_remote_forward.
func remoteFailedText(at Endpoint) string {
	if at.Path != "" {
		return "remote port forwarding failed for listen path " + at.Path
	}
	return fmt.Sprintf("remote port forwarding failed for listen port %d", at.Port)
}

// remoteBind is the address to ask the node for (channels.c, channel_rfwd_bind_host). GatewayPorts of
// this side has no say in it.
func remoteBind(host string) string {
	switch host {
	case "":
		return "localhost"
	case "*":
		return ""
	default:
		return host
	}
}

// cancelRemote does not ask whether it worked, like OpenSSH: the answer would change nothing.
func (f *Forwarder) cancelRemote(fwd Forward, port int) error {
	kind, body := cancelTCP, ssh.Marshal(tcpForward{remoteBind(fwd.Listen.Host), uint32(port)})
	if fwd.Listen.Path != "" {
		kind, body = cancelStream, ssh.Marshal(streamForward{fwd.Listen.Path})
	}
	if _, _, err := f.client.conn.SendRequest(kind, false, body); err != nil {
		return f.client.closedError()
	}
	return nil
}

// acceptTCP takes a connection that the node has accepted for a remote forward (RFC 4254 section 7.2).
func (f *Forwarder) acceptTCP(nc ssh.NewChannel) {
	var body struct {
		Host           string
		Port           uint32
		OriginatorHost string
		OriginatorPort uint32
	}
	if err := ssh.Unmarshal(nc.ExtraData(), &body); err != nil {
		reject(nc, ssh.ConnectionFailed, "malformed")
		return
	}
	to, found := f.remoteTarget(func(at Endpoint, port int) bool {
		return at.Path == "" && remoteBind(at.Host) == body.Host && uint32(port) == body.Port
	})
	if !found {
		f.cfg.Logf(-1, "WARNING: Server requests forwarding for unknown listen_port %d", body.Port)
		reject(nc, ssh.Prohibited, "open failed")
		return
	}
	f.accept(nc, to)
}

// acceptStream takes one for a remote Unix socket (PROTOCOL, section 2.4).
func (f *Forwarder) acceptStream(nc ssh.NewChannel) {
	var body struct{ Path, Reserved string }
	if err := ssh.Unmarshal(nc.ExtraData(), &body); err != nil {
		reject(nc, ssh.ConnectionFailed, "malformed")
		return
	}
	to, found := f.remoteTarget(func(at Endpoint, _ int) bool { return at.Path != "" && at.Path == body.Path })
	if !found {
		f.cfg.Logf(-1, "WARNING: Server requests forwarding for unknown path %.100s", printable(body.Path))
		reject(nc, ssh.Prohibited, "open failed")
		return
	}
	f.accept(nc, to)
}

// remoteTarget finds where the remote forward that matches goes. A connection may overtake what we do
// with the answer that chose its port, so it waits for the forwards whose port isn't known yet.
func (f *Forwarder) remoteTarget(matches func(at Endpoint, port int) bool) (to Endpoint, found bool) {
	for {
		var coming *forwardEntry
		f.mu.Lock()
		for fwd, e := range f.entries {
			switch {
			case fwd.Kind != ForwardRemote || !e.asked:
			case matches(fwd.Listen, e.port):
				f.mu.Unlock()
				return fwd.Connect, true
			case fwd.Listen.Path == "" && e.port == 0:
				coming = e
			}
		}
		f.mu.Unlock()
		if coming == nil {
			return Endpoint{}, false
		}
		coming.await() // its port is known then, or it has failed
	}
}

// accept connects the channel to its target. A forward without one speaks SOCKS with the node.
func (f *Forwarder) accept(nc ssh.NewChannel, to Endpoint) {
	if to == (Endpoint{}) {
		f.acceptRemoteSOCKS(nc)
		return
	}
	conn, err := f.dial(to)
	if err != nil {
		reject(nc, ssh.ConnectionFailed, strerror(err))
		return
	}
	f.during(conn, "remote forward to "+to.String(), func() {
		defer conn.Close()
		f.held(func() {
			if ch, err := f.acceptChannel(nc); err == nil {
				relay(halfClosing(conn), ch)
			}
		})
	})
}

// acceptChannel fails only when the connection has ended.
func (f *Forwarder) acceptChannel(nc ssh.NewChannel) (*forwardChannel, error) {
	ch, reqs, err := nc.Accept()
	if err != nil {
		return nil, err
	}
	return f.client.watch(f.life, ch, reqs)
}

func reject(nc ssh.NewChannel, reason ssh.RejectionReason, text string) {
	_ = nc.Reject(reason, text) // fails only when the connection has ended
}

// acceptRemoteSOCKS learns from the node's program where to connect.
func (f *Forwarder) acceptRemoteSOCKS(nc ssh.NewChannel) {
	ch, err := f.acceptChannel(nc)
	if err != nil {
		return
	}
	f.during(ch, "remote dynamic forward", func() {
		defer ch.Close()
		req, err := f.readSOCKS(ch)
		if err != nil {
			f.cfg.Logf(1, "remote dynamic forward: %v", err)
			return
		}
		conn, err := f.dialPermitted(req.to)
		if err != nil {
			_ = req.answer(ch, err) // it may have gone
			return
		}
		f.during(conn, "remote dynamic forward to "+req.to.String(), func() {
			defer conn.Close()
			if err := req.answer(ch, nil); err == nil {
				f.held(func() { relay(halfClosing(conn), ch) })
			}
		})
	})
}

// errNotPermitted is PermitRemoteOpen's refusal.
var errNotPermitted = errors.New("not permitted by PermitRemoteOpen")

func (f *Forwarder) dialPermitted(to Endpoint) (net.Conn, error) {
	if !permits(f.cfg.PermitRemoteOpen, to) {
		f.cfg.Logf(1, "remote dynamic forward: %s: %v", printable(to.String()), errNotPermitted)
		return nil, errNotPermitted
	}
	return f.dial(to)
}

// permits reports whether a list as of ForwardConfig.PermitRemoteOpen lets a connection through.
// Hosts are compared as they are written (channels.c, open_match): a name doesn't stand for its address.
func permits(list []string, to Endpoint) bool {
	if len(list) == 0 || len(list) == 1 && list[0] == "any" {
		return true
	}
	for _, entry := range list {
		colon := strings.LastIndexByte(entry, ':')
		if colon < 0 {
			continue // "none", or nonsense
		}
		host, port := entry[:colon], entry[colon+1:]
		if bare, ok := strings.CutPrefix(host, "["); ok {
			host = strings.TrimSuffix(bare, "]")
		}
		if (host == "*" || host == to.Host) && (port == "*" || port == strconv.Itoa(to.Port)) {
			return true
		}
	}
	return false
}

// dial connects to a target on this side.
func (f *Forwarder) dial(to Endpoint) (net.Conn, error) {
	network, address := "tcp", net.JoinHostPort(to.Host, strconv.Itoa(to.Port))
	if to.Path != "" {
		network, address = "unix", to.Path
	}
	var d net.Dialer
	conn, err := d.DialContext(f.life, network, address)
	if err != nil && f.life.Err() == nil {
		f.cfg.Logf(-1, "%s", printable(dialText(to, err)))
	}
	return conn, err
}

// dialText has the words of channels.c, connect_to_helper and channel_post_connecting; -2 is
// PORT_STREAMLOCAL.
func dialText(to Endpoint, err error) string {
	var dns *net.DNSError
	switch {
	case to.Path != "":
		return fmt.Sprintf("connect to %.100s port -2 failed: %s", to.Path, strerror(err))
	case errors.As(err, &dns):
		return fmt.Sprintf("connect_to %.100s: unknown host (%s)", to.Host, lookupText(err))
	default:
		return fmt.Sprintf("connect_to %.100s port %d: failed.", to.Host, to.Port)
	}
}
