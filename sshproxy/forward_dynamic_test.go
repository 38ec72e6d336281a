package sshproxy

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// socksAsk sends a SOCKS request and returns the answer's code (RFC 1928 section 6; 90 and 91 of SOCKS 4).
func socksAsk(t *testing.T, conn io.ReadWriter, version byte, to Endpoint) (code byte) {
	t.Helper()
	port := binary.BigEndian.AppendUint16(nil, uint16(to.Port))
	var request, answer []byte
	if version == 4 { // 4A
		request = append(append([]byte{4, 1}, port...), 0, 0, 0, 1, 'm', 'e', 0)
		request, answer = append(append(request, to.Host...), 0), make([]byte, 8)
	} else {
		request = append([]byte{5, 2, 2, 0, 5, 1, 0, 3, byte(len(to.Host))}, to.Host...)
		request, answer = append(request, port...), make([]byte, 2+10)
	}
	_, err1 := conn.Write(request)
	_, err2 := io.ReadFull(conn, answer)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if version == 4 {
		return answer[1]
	}
	return answer[3]
}

// TestForwardSOCKS is a client's view of -D and of -R without a target.
func TestForwardSOCKS(t *testing.T) {
	n := startNode(t, nodeOptions{})
	var log logBook
	c := n.connect(t, n.clientConfig(&log))
	echo := Endpoint{Host: "127.0.0.1", Port: portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))}
	nobody := Endpoint{Host: "127.0.0.1", Port: freePort(t)}
	f := startForwarder(t, c, ForwardConfig{Logf: log.logf,
		PermitRemoteOpen: []string{echo.String(), nobody.String(), "nosuch.invalid:*"}})
	tests := []struct {
		name      string
		to        Endpoint
		version   byte
		dynamic   byte // answers
		remote    byte
		connected bool
	}{
		{name: "4", to: echo, version: 4, dynamic: 90, remote: 90, connected: true},
		{name: "5", to: echo, version: 5, connected: true},
		{name: "4, nobody there", to: nobody, version: 4, dynamic: 91, remote: 91},
		{name: "5, nobody there", to: nobody, version: 5, dynamic: 5, remote: 5},
		{name: "5, unknown host", to: Endpoint{Host: "nosuch.invalid", Port: 1}, version: 5, dynamic: 5, remote: 4},
		{name: "5, not permitted", to: Endpoint{Host: "127.0.0.2", Port: nobody.Port}, version: 5, dynamic: 5, remote: 2},
		{name: "5, NUL in the name", to: Endpoint{Host: "127.0.0.1\x00", Port: echo.Port}, version: 5, dynamic: 1, remote: 1},
		{name: "5, no name", to: Endpoint{Port: echo.Port}, version: 5, dynamic: 1, remote: 1},
	}
	kinds := []struct {
		name string
		fwd  Forward
	}{{"dynamic", Forward{Kind: ForwardDynamic}}, {"remote", Forward{Kind: ForwardRemote}}}
	for _, tt := range tests {
		for _, kind := range kinds {
			t.Run(kind.name+" "+tt.name, func(t *testing.T) {
				want := tt.dynamic
				if kind.fwd.Kind == ForwardRemote {
					want = tt.remote
				}
				conn := dialPort(t, openForward(t, f, kind.fwd))
				if got := socksAsk(t, conn, tt.version, tt.to); got != want {
					t.Errorf("answer %d, want %d", got, want)
				}
				if !tt.connected {
					if got, err := io.ReadAll(conn); len(got) > 0 || err != nil {
						t.Errorf("after the refusal: %q, %v", got, err)
					}
					return
				}
				_, err1 := io.WriteString(conn, "word")
				err2 := conn.CloseWrite()
				got, err3 := io.ReadAll(conn)
				if err := errors.Join(err1, err2, err3); err != nil || string(got) != "WORD" {
					t.Errorf("got %q, %v", got, err)
				}
			})
		}
	}
}

func TestSOCKSAnswersToBadRequests(t *testing.T) {
	tests := []struct{ name, request, answer string }{
		{"4 bind", "\x04\x02\x00\x50\x0a\x01\x02\x03\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{"5 password wanted", "\x05\x01\x02", "\x05\xff"},
		{"5 no method", "\x05\x00", "\x05\xff"},
		{"5 bind", "\x05\x01\x00\x05\x02\x00\x01\x0a\x01\x02\x03\x00\x50", "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"5 address type", "\x05\x01\x00\x05\x01\x00\x02\x0a\x01\x02\x03\x00\x50", "\x05\x00\x05\x08\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"5 another version", "\x05\x01\x00\x04\x01\x00\x01", "\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"},
		{"cut", "\x05\x01\x00\x05\x01", "\x05\x00"},
		{"http", "GET / HTTP/1.1\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s script
			s.Reader = strings.NewReader(tt.request)
			if req, err := acceptSOCKS(&s); err == nil || s.Buffer.String() != tt.answer {
				t.Errorf("got %+v, %v, answered %q", req, err, s.Buffer.String())
			}
		})
	}
}

func TestSOCKSCodes(t *testing.T) {
	failed := func(n syscall.Errno) error { return &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", n)} }
	tests := []struct {
		name string
		err  error
		want byte
	}{
		{"none", nil, 0},
		{"not permitted", errNotPermitted, 2},
		{"node forbids", &ssh.OpenChannelError{Reason: ssh.Prohibited}, 2},
		{"node can't", &ssh.OpenChannelError{Reason: ssh.ConnectionFailed}, 5},
		{"node is short", &ssh.OpenChannelError{Reason: ssh.ResourceShortage}, 1},
		{"refused", failed(syscall.ECONNREFUSED), 5},
		{"no route to the network", failed(syscall.ENETUNREACH), 3},
		{"no route to the host", failed(syscall.EHOSTUNREACH), 4},
		{"unknown", &net.DNSError{IsNotFound: true}, 4},
		{"lost", net.ErrClosed, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := socksCode(tt.err); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestSOCKSClientMustAskInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Forwarder{}
		ours, theirs := net.Pipe()
		go func() { _, _ = theirs.Write([]byte{5, 1}) }() // and nothing more
		began := time.Now()
		_, err := f.readSOCKS(ours)
		if took := time.Since(began); err == nil || took != socksPatience {
			t.Errorf("got %v after %v", err, took)
		}
		theirs.Close()
	})
}

func TestPermitRemoteOpen(t *testing.T) {
	to := Endpoint{Host: "db.example", Port: 5432}
	six := Endpoint{Host: "2001:db8::1", Port: 22}
	tests := []struct {
		name string
		list []string
		to   Endpoint
		want bool
	}{
		{"empty", nil, to, true},
		{"any", []string{"any"}, to, true},
		{"none", []string{"none"}, to, false},
		{"any among others", []string{"any", "x:1"}, to, false},
		{"exact", []string{"x:1", "db.example:5432"}, to, true},
		{"another port", []string{"db.example:5433"}, to, false},
		{"another host", []string{"example:5432"}, to, false},
		{"any port", []string{"db.example:*"}, to, true},
		{"any host", []string{"*:5432"}, to, true},
		{"prefix is no pattern", []string{"db.*:5432"}, to, false},
		{"version 6", []string{"[2001:db8::1]:22"}, six, true},
		{"no port", []string{"db.example"}, to, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := permits(tt.list, tt.to); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
