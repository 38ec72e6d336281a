package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
)

// errNotBound is a socket that couldn't be prepared. What was wrong has been said; OpenSSH has no other word left.
var errNotBound = errors.New("failure")

// dialTCP connects to an ordinary host, with OpenSSH's words (its sshconnect.c, ssh_connect_direct). Unlike it,
// where a host has addresses of both families the second family gets its turn when the first is slow to answer.
func dialTCP(ctx context.Context, opts *sshopt.Options, logf report.Logf) (net.Conn, error) {
	network := "tcp"
	switch opts.AddressFamily {
	case "inet":
		network = "tcp4"
	case "inet6":
		network = "tcp6"
	}
	dialer := net.Dialer{KeepAlive: -1, ControlContext: socketSetter{opts, logf}.set}
	if opts.TCPKeepAlive {
		dialer.KeepAlive = 0
	}
	for attempt := 1; ; attempt++ {
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(opts.Host, strconv.Itoa(opts.Port)))
		if err == nil {
			logf(1, "Connection established.")
			return conn, nil
		}
		if dns := (*net.DNSError)(nil); errors.As(err, &dns) {
			why := "Name or service not known"
			if !dns.IsNotFound {
				why = "Temporary failure in name resolution"
			}
			return nil, textErrorf(err, "ssh: Could not resolve hostname %s: %s", opts.Host, why)
		}
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Addr != nil && !errors.Is(err, errNotBound) {
			if to, err := netip.ParseAddrPort(op.Addr.String()); err == nil {
				logf(1, "connect to address %s port %d: %s", to.Addr(), to.Port(), reason(op))
			}
		}
		if attempt >= opts.ConnectionAttempts || ctx.Err() != nil {
			return nil, textErrorf(err, "ssh: connect to host %s port %d: %s", opts.Host, opts.Port, reason(err))
		}
		select {
		case <-time.After(time.Second): // OpenSSH waits so between its ConnectionAttempts
			logf(1, "Trying again...")
		case <-ctx.Done():
		}
	}
}

// socketSetter prepares each socket before it connects (sshconnect.c, ssh_create_socket).
type socketSetter struct {
	opts *sshopt.Options
	logf report.Logf
}

func (s socketSetter) set(ctx context.Context, network, address string, conn syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	s.logf(1, "Connecting to %s [%s] port %d.", s.opts.Host, to.Addr(), to.Port())
	from, err := s.bindAddress(ctx, to.Addr().Is4())
	if err != nil {
		return err
	}
	var setErr error
	err = conn.Control(func(fd uintptr) {
		s.setTrafficClass(int(fd), to.Addr().Is4())
		if from.IsValid() {
			setErr = bindSocket(int(fd), from)
		}
	})
	if setErr != nil {
		s.logf(-1, "bind %s: %s", from, reason(setErr))
		return errNotBound
	}
	if from.IsValid() {
		s.logf(1, "ssh_create_socket: bound to %s", from)
	}
	return err
}

// setTrafficClass sets IPQoS, which OpenSSH chooses by whether the session is interactive.
func (s socketSetter) setTrafficClass(fd int, v4 bool) {
	class, ok := s.opts.TrafficClass()
	if !ok {
		return
	}
	level, name := syscall.IPPROTO_IPV6, syscall.IPV6_TCLASS
	if v4 {
		level, name = syscall.IPPROTO_IP, syscall.IP_TOS
	}
	if err := syscall.SetsockoptInt(fd, level, name, class); err != nil {
		s.logf(-1, "setsockopt socket %d tos 0x%02x: %s", fd, class, reason(err))
	}
}

// bindAddress finds what BindAddress or BindInterface stand for, of the family that is connected to. Without either
// it is the zero address.
func (s socketSetter) bindAddress(ctx context.Context, v4 bool) (netip.Addr, error) {
	switch {
	case s.opts.BindAddress != "":
		network := "ip6"
		if v4 {
			network = "ip4"
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, network, s.opts.BindAddress)
		if err != nil || len(found) == 0 {
			s.logf(-1, "getaddrinfo: %s: Name or service not known", s.opts.BindAddress)
			return netip.Addr{}, errNotBound
		}
		return found[0].Unmap(), nil
	case s.opts.BindInterface != "":
		found := interfaceAddress(s.opts.BindInterface, v4)
		if !found.IsValid() {
			s.logf(0, "getifaddrs: %s: no suitable addresses", s.opts.BindInterface)
			return found, errNotBound
		}
		return found, nil
	}
	return netip.Addr{}, nil
}

// interfaceAddress is an address of an interface that is up; one of the loopback or the link only where there is no
// other (sshconnect.c, check_ifaddrs).
func interfaceAddress(name string, v4 bool) netip.Addr {
	device, err := net.InterfaceByName(name)
	if err != nil || device.Flags&net.FlagUp == 0 {
		return netip.Addr{}
	}
	networks, err := device.Addrs()
	if err != nil {
		return netip.Addr{}
	}
	var local netip.Addr
	for _, network := range networks {
		prefix, err := netip.ParsePrefix(network.String())
		address := prefix.Addr().Unmap()
		switch {
		case err != nil || address.Is4() != v4:
		case !address.IsLoopback() && !address.IsLinkLocalUnicast():
			return address
		case !local.IsValid():
			local = address
		}
	}
	return local
}

func bindSocket(fd int, from netip.Addr) error {
	if from.Is4() {
		return syscall.Bind(fd, &syscall.SockaddrInet4{Addr: from.As4()})
	}
	to := &syscall.SockaddrInet6{Addr: from.As16()}
	if device, err := net.InterfaceByName(from.Zone()); err == nil {
		to.ZoneId = uint32(device.Index)
	}
	return syscall.Bind(fd, to)
}
