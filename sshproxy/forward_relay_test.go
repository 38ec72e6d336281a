package sshproxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// startForwarder runs forwards over a connection to the node.
func startForwarder(t *testing.T, c *Client, cfg ForwardConfig) *Forwarder {
	t.Helper()
	f := NewForwarder(c, cfg)
	t.Cleanup(func() { f.Stop(); c.Close(); f.Close() })
	return f
}

// openForward returns the port that the forward listens on.
func openForward(t *testing.T, f *Forwarder, fwd Forward) int {
	t.Helper()
	port, err := f.Open(fwd)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// serveTCP runs serve for every connection to a port of the loopback.
func serveTCP(t *testing.T, serve func(*net.TCPConn)) Endpoint {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); serve(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return Endpoint{Host: "127.0.0.1", Port: portOf(t, l.Addr())}
}

func dialPort(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func TestForwardHalfClose(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	f := startForwarder(t, c, ForwardConfig{})
	tests := []struct {
		name string
		kind ForwardKind
	}{{"local", ForwardLocal}, {"remote", ForwardRemote}}
	for _, tt := range tests {
		t.Run(tt.name+", the client ends first", func(t *testing.T) {
			to := serveTCP(t, func(c *net.TCPConn) {
				all, err := io.ReadAll(c)
				if err == nil {
					_, err = fmt.Fprintf(c, "%s, late", all)
				}
				if err != nil {
					t.Error(err)
				}
			})
			conn := dialPort(t, openForward(t, f, Forward{Kind: tt.kind, Connect: to}))
			_, err1 := io.WriteString(conn, "early")
			err2 := conn.CloseWrite()
			got, err3 := io.ReadAll(conn)
			if err := errors.Join(err1, err2, err3); err != nil || string(got) != "early, late" {
				t.Errorf("got %q, %v", got, err)
			}
		})
		t.Run(tt.name+", the server ends first", func(t *testing.T) {
			heard := make(chan string, 1)
			to := serveTCP(t, func(c *net.TCPConn) {
				_, err1 := io.WriteString(c, "early")
				err2 := c.CloseWrite()
				all, err3 := io.ReadAll(c)
				if err := errors.Join(err1, err2, err3); err != nil {
					t.Error(err)
				}
				heard <- string(all)
			})
			conn := dialPort(t, openForward(t, f, Forward{Kind: tt.kind, Connect: to}))
			got, err := io.ReadAll(conn)
			if err != nil || string(got) != "early" {
				t.Fatalf("got %q, %v", got, err)
			}
			if _, err := io.WriteString(conn, "late"); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			if got := <-heard; got != "late" {
				t.Errorf("the server heard %q", got)
			}
		})
	}
}

func TestForwardCarriesMuchBothWays(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	f := startForwarder(t, c, ForwardConfig{})
	echo := serveTCP(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	// There and back twice: through a remote forward that leads to a local one.
	near := openForward(t, f, Forward{Kind: ForwardLocal, Connect: echo})
	far := openForward(t, f, Forward{Kind: ForwardRemote, Connect: Endpoint{Host: "localhost", Port: near}})

	data := make([]byte, 3<<20) // beyond the window
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	conn := dialPort(t, far)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.Copy(conn, bytes.NewReader(data)); err != nil {
			t.Error(err)
		}
		_ = conn.CloseWrite()
	})
	got, err := io.ReadAll(conn)
	wg.Wait()
	if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
		t.Errorf("got %d bytes of %d, %v", len(got), len(data), err)
	}
}

func TestForwardSlowReaderHoldsUpNobody(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	f := startForwarder(t, c, ForwardConfig{})
	full := make(chan struct{})
	flood := serveTCP(t, func(c *net.TCPConn) {
		defer close(full)
		block := make([]byte, 256<<10)
		for {
			_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := c.Write(block); err != nil {
				return // every buffer in between is full
			}
		}
	})
	slow := dialPort(t, openForward(t, f, Forward{Kind: ForwardLocal, Connect: flood}))
	if _, err := io.ReadFull(slow, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	<-full
	echo := portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))
	port := openForward(t, f, Forward{Kind: ForwardLocal, Connect: Endpoint{Host: "127.0.0.1", Port: echo}})
	if got, err := exchange(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port), ""); got != "WORD" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestForwardVanishedClientEndsTheOther(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	f := startForwarder(t, c, ForwardConfig{})
	ended := make(chan struct{})
	to := serveTCP(t, func(c *net.TCPConn) {
		defer close(ended)
		_, _ = io.WriteString(c, "hello")
		_, _ = io.ReadAll(c)
	})
	conn := dialPort(t, openForward(t, f, Forward{Kind: ForwardLocal, Connect: to}))
	if _, err := io.ReadFull(conn, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetLinger(0) // a reset in place of an orderly end
	conn.Close()
	<-ended
}

// TestForwardOneBrokenDirectionLeavesTheOther is about a client that reads no more and has more to say.
func TestForwardOneBrokenDirectionLeavesTheOther(t *testing.T) {
	heard := make(chan string, 1)
	c := servePeer(t, func(_ *ssh.ServerConn, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
		go ssh.DiscardRequests(reqs)
		for nc := range chans {
			ch, reqs, err := nc.Accept()
			if err != nil {
				return
			}
			go ssh.DiscardRequests(reqs)
			_, _ = ch.Write(make([]byte, 1<<10)) // nobody takes it
			all, _ := io.ReadAll(ch)
			_ = ch.Close()
			heard <- string(all)
		}
	})
	broken := make(chan struct{})
	in, feed := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		<-broken
		_, _ = io.WriteString(feed, "all of it")
		feed.Close()
	})
	if err := c.ForwardStdio(testContext(t), Endpoint{Host: "x", Port: 1}, in, failingWriter{broken}); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if got := <-heard; got != "all of it" {
		t.Errorf("the node heard %q", got)
	}
}

func TestForwardDescriptorsStayFlat(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	f := startForwarder(t, c, ForwardConfig{})
	dir := shortDir(t)
	echo := Endpoint{Host: "127.0.0.1", Port: portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))}
	nobody := Endpoint{Host: "127.0.0.1", Port: freePort(t)}
	use := func() {
		for _, fwd := range []Forward{
			{Kind: ForwardLocal, Connect: echo}, {Kind: ForwardRemote, Connect: echo},
			{Kind: ForwardLocal, Connect: nobody}, {Kind: ForwardRemote, Connect: nobody},
			{Kind: ForwardDynamic}, {Kind: ForwardRemote},
		} {
			port := openForward(t, f, fwd)
			for range 3 {
				_, _ = exchange(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port), "")
			}
			if err := f.Cancel(fwd); err != nil {
				t.Fatal(err)
			}
		}
		path := Forward{Kind: ForwardLocal, Listen: Endpoint{Path: dir + "/s"}, Connect: echo}
		openForward(t, f, path)
		if got, err := exchange(t, "unix", dir+"/s", ""); got != "WORD" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		if err := f.Cancel(path); err != nil {
			t.Fatal(err)
		}
	}
	use() // what is opened once and kept
	before := testenv.Descriptors(t)
	for range 3 {
		use()
	}
	await(t, "the last descriptors", func() bool { return testenv.Descriptors(t) <= before })
	await(t, "the last connections", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.entries) == 0 && len(f.open) == 0
	})
}

func TestForwardStopEndsConnections(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	f := NewForwarder(c, ForwardConfig{})
	silent := serveTCP(t, func(c *net.TCPConn) { _, _ = io.ReadAll(c) })
	var conns []*net.TCPConn
	for _, fwd := range []Forward{{Kind: ForwardLocal, Connect: silent}, {Kind: ForwardRemote, Connect: silent}} {
		conn := dialPort(t, openForward(t, f, fwd))
		if _, err := io.WriteString(conn, "x"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	await(t, "both connections", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.open) == 2
	})
	f.Close() // the client lives, and the servers never end by themselves
	for _, conn := range conns {
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, net.ErrClosed) && errno(err) == 0 {
			t.Error(err)
		}
	}
	if _, err := f.Open(Forward{Kind: ForwardLocal, Connect: silent}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("open after the end: %v", err)
	}
	if stdout, _, status, _ := run(t, c, SessionRequest{Command: "echo alive"}); stdout != "alive\n" || status != 0 {
		t.Errorf("the connection after it: %q %d", stdout, status)
	}
}

func TestForwardStdioAlone(t *testing.T) {
	n := startNode(t, nodeOptions{})
	c := n.client(t)
	dir := shortDir(t)
	echo := Endpoint{Host: "127.0.0.1", Port: portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))}
	startEcho(t, "unix", dir+"/echo")
	tests := []struct {
		name    string
		to      Endpoint
		refused string
		out     string
	}{
		{name: "address", to: echo, out: "WORD"},
		{name: "socket", to: Endpoint{Path: dir + "/echo"}, out: "WORD"},
		{name: "nobody there", to: Endpoint{Host: "127.0.0.1", Port: freePort(t)}, refused: "connect failed: Connection refused"},
		{name: "no socket there", to: Endpoint{Path: dir + "/none"}, refused: "connect failed: open failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := c.ForwardStdio(testContext(t), tt.to, strings.NewReader("word"), &out)
			var refused *ssh.OpenChannelError
			text := ""
			if errors.As(err, &refused) {
				text = refusalText(refused)
			} else if err != nil {
				t.Error(err)
			}
			if text != tt.refused || out.String() != tt.out {
				t.Errorf("got %q, %q", out.String(), text)
			}
		})
	}
	t.Run("no NUL gets out", func(t *testing.T) {
		// sshd would end the connection.
		if err := c.ForwardStdio(testContext(t), Endpoint{Host: "a\x00b", Port: 1}, strings.NewReader(""), io.Discard); err == nil {
			t.Error("opened")
		}
	})
	t.Run("ended by its context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(testContext(t))
		reason := errors.New("enough")
		silent := serveTCP(t, func(c *net.TCPConn) { cancel(reason); _, _ = io.ReadAll(c) })
		in, _ := io.Pipe() // without an end
		if err := c.ForwardStdio(ctx, silent, in, io.Discard); !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("lost connection", func(t *testing.T) {
		lost := errors.New("lost")
		silent := serveTCP(t, func(conn *net.TCPConn) { _, _ = conn.Read(make([]byte, 1)); c.end(lost) })
		in, feed := io.Pipe()
		go func() { _, _ = io.WriteString(feed, "x") }() // once it is relayed
		if err := c.ForwardStdio(testContext(t), silent, in, io.Discard); !errors.Is(err, lost) {
			t.Errorf("got %v", err)
		}
	})
}
