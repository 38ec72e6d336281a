package sshproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// SOCKS 4, 4A and 5, CONNECT only and without authentication, as ssh -D has them (channels.c,
// channel_decode_socks4 and channel_decode_socks5).
const (
	socks4        = 4 // SOCKS: A protocol for TCP proxy across firewalls (Ying-Da Lee)
	socks4Granted = 90
	socks4Refused = 91

	socks5         = 5 // RFC 1928
	socks5NoAuth   = 0 // section 3
	socks5NoMethod = 0xff
	socks5IPv4     = 1 // section 5
	socks5Name     = 3
	socks5IPv6     = 4

	socksConnect = 1 // in both

	// socksNameLimit bounds SOCKS 4's user and host names, which end with a NUL.
	socksNameLimit = 255

	// socksPatience is how long a client may take for its request. ssh waits for ever.
	socksPatience = 2 * time.Minute
)

// Answers of RFC 1928 section 6.
const (
	socks5OK byte = iota
	socks5Failed
	socks5Prohibited
	socks5NetUnreachable
	socks5HostUnreachable
	socks5Refused
	socks5TTLExpired
	socks5NoCommand
	socks5NoAddressType
)

var errSOCKS = errors.New("malformed SOCKS request")

// socksRequest is a client's wish, to be answered once.
type socksRequest struct {
	version byte
	to      Endpoint
}

// readSOCKS reads a request from a connection, which is closed when it takes too long.
func (f *Forwarder) readSOCKS(rw io.ReadWriteCloser) (socksRequest, error) {
	timer := time.AfterFunc(socksPatience, func() { _ = rw.Close() })
	defer timer.Stop()
	return acceptSOCKS(rw)
}

// acceptSOCKS reads a request and not a byte more: what follows is for the other end already. Where the
// protocol has an answer to a bad one, it is sent.
func acceptSOCKS(rw io.ReadWriter) (socksRequest, error) {
	version, err := readByte(rw)
	if err != nil {
		return socksRequest{}, err
	}
	req := socksRequest{version: version}
	switch version {
	case socks4:
		req.to, err = acceptSOCKS4(rw)
	case socks5:
		req.to, err = acceptSOCKS5(rw)
	default:
		return req, fmt.Errorf("%w: version %d", errSOCKS, version)
	}
	// sshd ends the whole connection over a NUL in a name, and nothing has an empty one.
	if err == nil && (req.to.Host == "" || !req.to.valid()) {
		err = fmt.Errorf("%w: host name", errSOCKS)
	}
	if errors.Is(err, errSOCKS) {
		err = errors.Join(err, req.answer(rw, err))
	}
	return req, err
}

func acceptSOCKS4(r io.Reader) (Endpoint, error) {
	var head [7]byte // command, port, address
	if err := readSOCKSBytes(r, head[:]); err != nil {
		return Endpoint{}, err
	}
	if head[0] != socksConnect {
		return Endpoint{}, fmt.Errorf("%w: command %d", errSOCKS, head[0])
	}
	if _, err := readNulString(r); err != nil { // the user
		return Endpoint{}, err
	}
	to := Endpoint{Host: net.IP(head[3:7]).String(), Port: int(binary.BigEndian.Uint16(head[1:3]))}
	if head[3] == 0 && head[4] == 0 && head[5] == 0 && head[6] != 0 { // 4A: 0.0.0.x announces a name
		name, err := readNulString(r)
		if err != nil {
			return Endpoint{}, err
		}
		to.Host = name
	}
	return to, nil
}

func acceptSOCKS5(rw io.ReadWriter) (Endpoint, error) {
	if err := acceptSOCKS5Method(rw); err != nil {
		return Endpoint{}, err
	}
	var head [4]byte // version, command, reserved, address type
	if err := readSOCKSBytes(rw, head[:]); err != nil {
		return Endpoint{}, err
	}
	switch {
	case head[0] != socks5:
		return Endpoint{}, fmt.Errorf("%w: version %d", errSOCKS, head[0])
	case head[1] != socksConnect:
		return Endpoint{}, socksError(socks5NoCommand)
	}
	host, err := readSOCKS5Host(rw, head[3])
	if err != nil {
		return Endpoint{}, err
	}
	var port [2]byte
	err = readSOCKSBytes(rw, port[:])
	return Endpoint{Host: host, Port: int(binary.BigEndian.Uint16(port[:]))}, err
}

// acceptSOCKS5Method settles on no authentication; the version byte is read already.
func acceptSOCKS5Method(rw io.ReadWriter) error {
	count, err := readByte(rw)
	if err != nil {
		return err
	}
	methods := make([]byte, count)
	if err := readSOCKSBytes(rw, methods); err != nil {
		return err
	}
	if strings.IndexByte(string(methods), socks5NoAuth) >= 0 {
		_, err := rw.Write([]byte{socks5, socks5NoAuth})
		return err
	}
	_, err = rw.Write([]byte{socks5, socks5NoMethod})
	return errors.Join(errors.New("SOCKS client wants to authenticate"), err)
}

func readSOCKS5Host(r io.Reader, kind byte) (string, error) {
	size := 0
	switch kind {
	case socks5IPv4:
		size = net.IPv4len
	case socks5IPv6:
		size = net.IPv6len
	case socks5Name:
		length, err := readByte(r)
		if err != nil {
			return "", err
		}
		size = int(length)
	default:
		return "", socksError(socks5NoAddressType)
	}
	host := make([]byte, size)
	if err := readSOCKSBytes(r, host); err != nil {
		return "", err
	}
	if kind == socks5Name {
		return string(host), nil
	}
	return net.IP(host).String(), nil
}

// readNulString reads byte by byte, since what follows isn't ours.
func readNulString(r io.Reader) (string, error) {
	var s []byte
	for len(s) <= socksNameLimit {
		b, err := readByte(r)
		if err != nil {
			return "", err
		}
		if b == 0 {
			return string(s), nil
		}
		s = append(s, b)
	}
	return "", fmt.Errorf("%w: name too long", errSOCKS)
}

func readByte(r io.Reader) (byte, error) {
	var b [1]byte
	err := readSOCKSBytes(r, b[:])
	return b[0], err
}

func readSOCKSBytes(r io.Reader, p []byte) error {
	if _, err := io.ReadFull(r, p); err != nil {
		return fmt.Errorf("reading SOCKS request: %w", err)
	}
	return nil
}

// answer tells the client how its request ended: granted when err is nil. ssh grants before the node
// has connected. That spares no round trip, as the client's first bytes wait for the channel too, and
// it leaves a browser without the reason.
func (r socksRequest) answer(w io.Writer, err error) error {
	var reply []byte
	switch {
	case r.version == socks5:
		reply = []byte{socks5, socksCode(err), 0, socks5IPv4, 0, 0, 0, 0, 0, 0}
	case err == nil:
		reply = []byte{0, socks4Granted, 0, 0, 0, 0, 0, 0}
	default:
		reply = []byte{0, socks4Refused, 0, 0, 0, 0, 0, 0}
	}
	_, err = w.Write(reply)
	return err
}

// socksError is a request that has an answer of its own.
type socksError byte

func (e socksError) Error() string     { return fmt.Sprintf("%v: answered with %d", errSOCKS, byte(e)) }
func (e socksError) Is(err error) bool { return err == errSOCKS }

// socksCode is why a connection could not be made.
func socksCode(err error) byte {
	var own socksError
	var refused *ssh.OpenChannelError
	var dns *net.DNSError
	switch {
	case err == nil:
		return socks5OK
	case errors.As(err, &own):
		return byte(own)
	case errors.Is(err, errNotPermitted), errors.As(err, &refused) && refused.Reason == ssh.Prohibited:
		return socks5Prohibited
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &refused) && refused.Reason == ssh.ConnectionFailed:
		return socks5Refused // sshd has one reason for all that fails in connecting
	case errors.Is(err, syscall.ENETUNREACH):
		return socks5NetUnreachable
	case errors.Is(err, syscall.EHOSTUNREACH), errors.As(err, &dns):
		return socks5HostUnreachable
	default:
		return socks5Failed
	}
}
