package sshproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// portTries is how many ports that the system chooses for one address are tried on the others.
const portTries = 8

// openLocal listens for a local or a dynamic forward. It counts as there when one of the addresses
// could be bound.
func (f *Forwarder) openLocal(fwd Forward, e *forwardEntry) error {
	listeners, err := f.listen(fwd.Listen)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		closeListeners(listeners) // before anyone could connect
		return net.ErrClosed
	}
	e.listeners, e.port = listeners, listenerPort(listeners[0])
	for _, l := range listeners {
		f.cfg.Logf(1, "Local forwarding listening on %s.", l.Addr())
		f.wg.Go(func() { f.serveLocal(l, fwd) })
	}
	return nil
}

// listenerPort is 0 for a path.
func listenerPort(l net.Listener) int {
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		return tcp.Port
	}
	return 0
}

func (f *Forwarder) listen(at Endpoint) ([]net.Listener, error) {
	if at.Path != "" {
		l, err := f.listenPath(at.Path)
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}
	return f.listenTCP(at)
}

// listenTCP listens on all addresses that a bind address stands for, on one port. Of those that can't
// be bound only the last is an error to OpenSSH: the others may be those of a family that the system
// lacks, or of a socket that is bound for both (channels.c, channel_setup_fwd_listener_tcpip).
func (f *Forwarder) listenTCP(at Endpoint) ([]net.Listener, error) {
	addrs, err := f.bindAddresses(at.Host)
	if err != nil {
		text := fmt.Sprintf("channel_setup_fwd_listener_tcpip: getaddrinfo(%.64s): %s", at.Host, lookupText(err))
		return nil, &TextError{Text: text, Err: err}
	}
	listeners, failures := bindAll(addrs, at.Port)
	for tries := 1; at.Port == 0 && tries < portTries && errors.Is(errors.Join(failures...), unix.EADDRINUSE); tries++ {
		closeListeners(listeners)
		listeners, failures = bindAll(addrs, 0)
	}
	var lastText string
	for i, err := range failures {
		if err == nil {
			continue
		}
		text := fmt.Sprintf("bind [%s]:%d: %s", addrs[i], at.Port, strerror(err))
		switch {
		case i < len(addrs)-1:
			f.cfg.Logf(1, "%s", text)
		case len(listeners) > 0:
			f.cfg.Logf(-1, "%s", text)
		default:
			lastText = text + "\n"
		}
	}
	if len(listeners) == 0 {
		text := fmt.Sprintf("%schannel_setup_fwd_listener_tcpip: cannot listen to port: %d", lastText, at.Port)
		return nil, &TextError{Text: text, Err: errors.Join(failures...)}
	}
	return listeners, nil
}

// bindAll listens on every address that it can, and returns an error or nil for each. With port 0 they
// all get the port that the system chooses for the first.
func bindAll(addrs []netip.Addr, port int) (listeners []net.Listener, failures []error) {
	for _, a := range addrs {
		network := "tcp4"
		if a.Is6() {
			network = "tcp6" // and no version 4 with it
		}
		l, err := net.Listen(network, netip.AddrPortFrom(a, uint16(port)).String())
		failures = append(failures, err)
		if err == nil {
			listeners = append(listeners, l)
			port = listenerPort(l)
		}
	}
	return listeners, failures
}

// bindAddresses are those that a bind address stands for (channels.c, channel_fwd_bind_addr), in the
// order of getaddrinfo(3).
func (f *Forwarder) bindAddresses(host string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	switch {
	case host == "*", host == "" && f.cfg.GatewayPorts:
		addrs = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	case host == "", host == "localhost":
		addrs = []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	default:
		found, err := net.DefaultResolver.LookupNetIP(f.life, "ip", host)
		if err != nil {
			return nil, err
		}
		for _, a := range found {
			addrs = append(addrs, a.Unmap())
		}
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return f.cfg.AddressFamily == "inet" && a.Is6() || f.cfg.AddressFamily == "inet6" && a.Is4()
	})
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address of this family", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// lookupText is why a name has no address, as gai_strerror(3) has it.
func lookupText(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) && !dns.IsNotFound {
		return "Temporary failure in name resolution"
	}
	return "Name or service not known"
}

// listenPath listens on a Unix socket. Its mode is set before it listens: until then nobody can
// connect.
func (f *Forwarder) listenPath(path string) (net.Listener, error) {
	if len(path) >= sunPathBytes {
		text := fmt.Sprintf("unix_listener: path \"%s\" too long for Unix domain socket", path)
		return nil, &TextError{Text: text, Err: unix.ENAMETOOLONG}
	}
	if f.cfg.StreamLocalBindUnlink {
		if err := unix.Unlink(path); err != nil && !errors.Is(err, unix.ENOENT) {
			f.cfg.Logf(-1, "unlink(%s): %s", path, strerror(err)) // bind has the last word
		}
	}
	fd, err := streamSocket()
	if err != nil {
		return nil, fmt.Errorf("local forward: %w", err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close() // net.FileListener has a copy
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, listenError(path, "cannot bind to path "+path, err)
	}
	l := &pathListener{path: path}
	if l.file, err = os.Lstat(path); err == nil {
		err = os.Chmod(path, 0o777&^f.cfg.StreamLocalBindMask)
	}
	if err == nil {
		err = unix.Listen(fd, listenBacklog)
	}
	if err == nil {
		l.Listener, err = net.FileListener(file)
	}
	if err != nil {
		_ = os.Remove(path) // ours, and of no use
		return nil, listenError(path, "cannot listen on path "+path, err)
	}
	return l, nil
}

// pathListener takes its name with it, unless another has taken that over.
type pathListener struct {
	net.Listener
	path string
	file os.FileInfo
}

func (l *pathListener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.file) {
		_ = os.Remove(l.path) // left behind it would only be in the way of the next
	}
	return l.Listener.Close()
}

// serveLocal takes connections until the listener is closed.
func (f *Forwarder) serveLocal(l net.Listener, fwd Forward) {
	acceptAll(f.life, l, f.cfg.Logf, func(conn net.Conn) {
		f.wg.Go(func() {
			f.during(conn, f.describe(fwd), func() {
				defer conn.Close()
				f.serveConn(conn, fwd)
			})
		})
	})
}

// acceptAll hands over connections until the listener is closed or ctx ends. When there is no
// descriptor left it rests, as OpenSSH does (channels.c, channel_post_port_listener: notbefore), and
// complains once.
func acceptAll(ctx context.Context, l net.Listener, logf func(int, string, ...any), serve func(net.Conn)) {
	for complained := false; ctx.Err() == nil; {
		conn, err := l.Accept()
		switch {
		case err == nil:
			complained = false
			serve(conn)
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, syscall.ECONNABORTED): // it went away while it waited
		default:
			if !complained {
				logf(-1, "accept: %s", strerror(err))
			}
			complained = true
			pause(ctx, acceptPause)
		}
	}
}

// serveConn relays one connection to where the forward goes, or where its SOCKS request says.
func (f *Forwarder) serveConn(conn net.Conn, fwd Forward) {
	if fwd.Kind != ForwardDynamic {
		f.carry(conn, fwd.Connect, func(error) error { return nil })
		return
	}
	req, err := f.readSOCKS(conn)
	if err != nil {
		f.cfg.Logf(1, "dynamic forward: %v", err)
		return // it has its answer, or broke the protocol
	}
	f.carry(conn, req.to, func(err error) error { return req.answer(conn, err) })
}

// carry opens a channel for a local connection, tells whether that worked, and relays until both have
// ended.
func (f *Forwarder) carry(conn net.Conn, to Endpoint, tell func(error) error) {
	f.held(func() {
		ch, err := f.client.openDirect(f.life, to, conn.RemoteAddr())
		if err != nil {
			f.logRefusal(err)
			_ = tell(err) // it may have gone
			return
		}
		if err := tell(nil); err != nil {
			_ = ch.Close() // nobody waits for it
			return
		}
		relay(halfClosing(conn), ch)
	})
}

// logRefusal has the words of channels.c, channel_input_open_failure.
func (f *Forwarder) logRefusal(err error) {
	var refused *ssh.OpenChannelError
	if !errors.As(err, &refused) {
		f.cfg.Logf(1, "forward: %v", err)
		return
	}
	f.mu.Lock()
	f.numbers++
	number := f.numbers
	f.mu.Unlock()
	f.cfg.Logf(0, "channel %d: open failed: %s", number, refusalText(refused))
}
