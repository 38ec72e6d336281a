package sshproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// listenOn occupies a port on one address; the test is skipped where the address isn't there.
func listenOn(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestForwardLocalListener(t *testing.T) {
	c := servePeer(t, refuseAll)
	both := listenOn(t, "tcp4", "127.0.0.1:0")
	busy := portOf(t, both.Addr())
	listenOn(t, "tcp6", fmt.Sprintf("[::1]:%d", busy))
	busy4 := portOf(t, listenOn(t, "tcp4", "127.0.0.1:0").Addr())
	busy6 := portOf(t, listenOn(t, "tcp6", "[::1]:0").Addr())
	dir := shortDir(t)
	writeFile(t, filepath.Join(dir, "file"), "", 0o600)
	long := filepath.Join(dir, strings.Repeat("x", sunPathBytes))
	tests := []struct {
		name   string
		cfg    ForwardConfig
		listen Endpoint
		want   string // the error
		log    string // at INFO and above
	}{
		// What follows are stock ssh's words (9.2).
		{name: "both busy", listen: Endpoint{Port: busy}, want: fmt.Sprintf(
			"bind [127.0.0.1]:%d: Address already in use\nchannel_setup_fwd_listener_tcpip: cannot listen to port: %[1]d", busy)},
		{name: "the last busy", listen: Endpoint{Port: busy4}, log: fmt.Sprintf("bind [127.0.0.1]:%d: Address already in use", busy4)},
		{name: "the first busy", listen: Endpoint{Port: busy6}},
		{name: "all busy", cfg: ForwardConfig{GatewayPorts: true}, listen: Endpoint{Port: busy}, want: fmt.Sprintf(
			"bind [::]:%d: Address already in use\nchannel_setup_fwd_listener_tcpip: cannot listen to port: %[1]d", busy)},
		{name: "one family", cfg: ForwardConfig{AddressFamily: "inet"}, listen: Endpoint{Port: busy4}, want: fmt.Sprintf(
			"bind [127.0.0.1]:%d: Address already in use\nchannel_setup_fwd_listener_tcpip: cannot listen to port: %[1]d", busy4)},
		{name: "unknown host", listen: Endpoint{Host: "nosuch.invalid", Port: 1},
			want: "channel_setup_fwd_listener_tcpip: getaddrinfo(nosuch.invalid): Name or service not known"},
		{name: "path of a file", listen: Endpoint{Path: filepath.Join(dir, "file")},
			want: "unix_listener: cannot bind to path " + filepath.Join(dir, "file") + ": Address already in use"},
		{name: "path of a file to be unlinked", cfg: ForwardConfig{StreamLocalBindUnlink: true}, listen: Endpoint{Path: filepath.Join(dir, "file")}},
		{name: "path too long", listen: Endpoint{Path: long}, want: `unix_listener: path "` + long + `" too long for Unix domain socket`},
		{name: "no folder", listen: Endpoint{Path: dir + "/none/s"},
			want: "unix_listener: cannot bind to path " + dir + "/none/s: No such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log logBook
			tt.cfg.Logf = log.logf
			f := NewForwarder(c, tt.cfg)
			defer f.Close()
			_, err := f.Open(Forward{Kind: ForwardLocal, Listen: tt.listen, Connect: Endpoint{Host: "x", Port: 1}})
			got := ""
			var text *TextError
			if errors.As(err, &text) {
				got = text.Text
			} else if err != nil {
				t.Error(err)
			}
			if got != tt.want || log.text() != tt.log {
				t.Errorf("got %q, logged %q", got, log.text())
			}
		})
	}
}

func TestForwardLocalPortZero(t *testing.T) {
	c := servePeer(t, refuseAll)
	f := startForwarder(t, c, ForwardConfig{})
	listenOn(t, "tcp6", "[::1]:0")
	fwd := Forward{Kind: ForwardLocal, Connect: Endpoint{Host: "x", Port: 1}}
	port := openForward(t, f, fwd)
	if again := openForward(t, f, fwd); again != port || port == 0 {
		t.Errorf("ports %d and %d", port, again)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if other := openForward(t, f, Forward{Kind: ForwardLocal, Connect: Endpoint{Host: "y", Port: 1}}); other == port {
		t.Error("another forward has the same port")
	}
}

func TestForwardSocketMode(t *testing.T) {
	c := servePeer(t, refuseAll)
	dir := shortDir(t)
	for mask, want := range map[os.FileMode]os.FileMode{0: 0o600, 0o177: 0o600, 0o117: 0o660} {
		f := NewForwarder(c, ForwardConfig{StreamLocalBindMask: mask})
		fwd := Forward{Kind: ForwardLocal, Listen: Endpoint{Path: dir + "/s"}, Connect: Endpoint{Host: "x", Port: 1}}
		openForward(t, f, fwd)
		info, err := os.Stat(dir + "/s")
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("mask %o: %v, %v", mask, info, err)
		}
		if err := f.Cancel(fwd); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(dir + "/s"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after the end: %v", err)
		}
		f.Close()
	}
}

func TestForwardRefusesNonsense(t *testing.T) {
	to := Endpoint{Host: "x", Port: 1}
	tests := []struct {
		name string
		fwd  Forward
		ok   bool
	}{
		{"local", Forward{ForwardLocal, Endpoint{Port: 1}, to}, true},
		{"local to nowhere", Forward{ForwardLocal, Endpoint{Port: 1}, Endpoint{Host: "x"}}, false},
		{"remote to nowhere", Forward{ForwardRemote, Endpoint{Port: 1}, Endpoint{Host: "socks"}}, true},
		{"dynamic on a path", Forward{ForwardDynamic, Endpoint{Path: "/s"}, Endpoint{}}, false},
		{"dynamic to a path", Forward{ForwardDynamic, Endpoint{Port: 1}, Endpoint{Path: "/s"}}, false},
		{"listen port", Forward{ForwardLocal, Endpoint{Port: 65536}, to}, false},
		{"connect port", Forward{ForwardLocal, Endpoint{Port: 1}, Endpoint{Host: "x", Port: 65536}}, false},
		{"negative port", Forward{ForwardRemote, Endpoint{Port: -1}, to}, false},
		{"NUL in a host", Forward{ForwardLocal, Endpoint{Port: 1}, Endpoint{Host: "x\x00", Port: 1}}, false},
		{"NUL in a path", Forward{ForwardRemote, Endpoint{Path: "/\x00"}, to}, false},
		{"no kind", Forward{0, Endpoint{Port: 1}, to}, false},
		{"another kind", Forward{4, Endpoint{Port: 1}, to}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			settled, err := tt.fwd.settled()
			if (err == nil) != tt.ok || err == nil && tt.fwd.Kind == ForwardRemote && settled.Connect != (Endpoint{}) {
				t.Errorf("got %+v, %v", settled, err)
			}
		})
	}
}

// TestForwardComesAndGoesAtOnce opens and ends one forward from many sides.
func TestForwardComesAndGoesAtOnce(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	f := startForwarder(t, c, ForwardConfig{})
	to := Endpoint{Host: "127.0.0.1", Port: 1}
	port := freePort(t)
	forwards := []Forward{
		{Kind: ForwardLocal, Connect: to}, {Kind: ForwardDynamic},
		{Kind: ForwardRemote, Connect: to}, {Kind: ForwardRemote, Listen: Endpoint{Port: port}},
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 10 {
				fwd := forwards[i%len(forwards)]
				if _, err := f.Open(fwd); err != nil {
					t.Error(err)
				}
				if i < len(forwards) {
					f.Release(fwd)
				} else if err := f.Cancel(fwd); err != nil && !errors.Is(err, errForwardNotThere) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, fwd := range forwards {
		_ = f.Cancel(fwd) // one may have come after the last cancel
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.entries) != 0 {
		t.Errorf("left: %d", len(f.entries))
	}
}

// poorListener has no descriptor left for a while.
type poorListener struct {
	net.Listener
	outcomes []error // nil: a connection
}

func (l *poorListener) Accept() (net.Conn, error) {
	if len(l.outcomes) == 0 {
		return nil, net.ErrClosed
	}
	err := l.outcomes[0]
	l.outcomes = l.outcomes[1:]
	if err != nil {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	}
	a, _ := net.Pipe()
	return a, nil
}

func TestForwardAcceptSurvivesLackOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &poorListener{outcomes: []error{nil, syscall.EMFILE, syscall.ENFILE, syscall.EMFILE, nil, syscall.ECONNABORTED, nil, syscall.EMFILE}}
		var log logBook
		served, began := 0, time.Now()
		acceptAll(t.Context(), l, log.logf, func(net.Conn) { served++ })
		want := "accept: Too many open files\naccept: Too many open files"
		if took := time.Since(began); served != 3 || took != 4*acceptPause || log.text() != want {
			t.Errorf("served %d in %v, logged %q", served, took, log.text())
		}
		l.outcomes = []error{syscall.EMFILE, nil}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(acceptPause/2, cancel)
		acceptAll(ctx, l, log.logf, func(net.Conn) { t.Error("served after the end") })
	})
}
