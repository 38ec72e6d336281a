package sshproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestStockProxyModeOnOurMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{Spares: 1})
	big := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB: beyond every window
	tests := []struct {
		name, command, stdin string
		want                 result
	}{
		{name: "status and streams", command: "echo out; echo err >&2; exit 5", want: result{"out\n", "err\n", 5}},
		{name: "stdin", command: "cat; echo EOF", stdin: "abc", want: result{stdout: "abcEOF\n"}},
		{name: "large both ways", command: "cat", stdin: big, want: result{stdout: big}},
		{name: "death by signal", command: "kill -9 $$", want: result{status: 255}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := stockSSH(t, m.path, "-O", "proxy", "x", tt.command)
			cmd.Stdin = strings.NewReader(tt.stdin)
			if got := runCommand(t, cmd); got != tt.want {
				t.Errorf("got %.200s, want %.200s", got.stdout+got.stderr, tt.want.stdout+tt.want.stderr)
			}
		})
	}
	t.Run("killed", func(t *testing.T) {
		cmd := stockSSH(t, m.path, "-O", "proxy", "x", "echo up; cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		await(t, "the client", func() bool { return m.clientCount() > 0 })
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		await(t, "the client's end", func() bool { return m.clientCount() == 0 })
	})
}

// TestProxiedSessionsWaitTheirTurn: sessions of clients in proxy mode count as any other's.
func TestProxiedSessionsWaitTheirTurn(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"MaxSessions 2"}})
	m := startMaster(t, n, MasterConfig{Spares: 2})
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			args := []string{"x", fmt.Sprintf("sleep 0.1; exit %d", i)}
			if i%2 == 0 {
				args = append([]string{"-O", "proxy"}, args...)
			}
			if got := runCommand(t, stockSSH(t, m.path, args...)); got != (result{status: i}) {
				t.Errorf("%v: got %+v, want status %d alone", args, got, i)
			}
		})
	}
	wg.Wait()
}

func TestProxyModeRefusesNonsense(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	tests := []struct{ name, packet string }{
		{name: "too short", packet: "00000001 00"},
		{name: "transport packet", packet: "00000002 00 14"},
		{name: "no such channel", packet: "00000006 00 60 00000007"},
		{name: "cut open", packet: "0000000a 00 5a 00000007 73657373"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dialRaw(t, m.path)
			c.put(&helloMessage{Version: muxVersion})
			c.want(&helloMessage{Version: muxVersion})
			c.put(&plainMessage{Kind: muxProxy, ID: 0})
			c.want(&plainMessage{Kind: muxProxyOK, ID: 0})
			if _, err := c.Write(unhex(t, tt.packet)); err != nil {
				t.Fatal(err)
			}
			c.wantEnd()
		})
	}
}

// Our client's proxy mode is a connection like one's own.
func TestOurProxyModeOnStockMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	big := strings.Repeat("0123456789abcdef", 3<<16) // 3 MiB: beyond every window
	tests := []struct {
		name, command, stdin, stdout, stderr string
		status                               int
		ok                                   bool
	}{
		{name: "status and streams", command: "echo out; echo err >&2; exit 5", stdout: "out\n", stderr: "err\n", status: 5, ok: true},
		{name: "stdin", command: "cat; echo EOF", stdin: "abc", stdout: "abcEOF\n", ok: true},
		{name: "large both ways", command: "cat", stdin: big, stdout: big, ok: true},
		{name: "large stderr", command: "cat >&2", stdin: big, stderr: big, ok: true},
		{name: "death by signal", command: "kill -9 $$"},
	}
	for name, path := range map[string]string{"ours": startMaster(t, n, MasterConfig{}).path, "stock": startStockMaster(t, n)} {
		client, err := dialMaster(t, path).Proxied(testContext(t), Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				s := openSession(t, client)
				var out, errs bytes.Buffer
				if err := s.Start(testContext(t), SessionRequest{Command: tt.command, Stdin: strings.NewReader(tt.stdin), Stdout: &out, Stderr: &errs}); err != nil {
					t.Fatal(err)
				}
				status, ok := s.Wait()
				if status != tt.status || ok != tt.ok || out.String() != tt.stdout || errs.String() != tt.stderr {
					t.Errorf("got %d %v, %d bytes of stdout, %d of stderr", status, ok, out.Len(), errs.Len())
				}
			})
		}
		refused := openSession(t, client)
		var no *RequestRefusedError
		if err := refused.Start(testContext(t), SessionRequest{Subsystem: true, Command: "nope"}); !errors.As(err, &no) {
			t.Errorf("%s: unknown subsystem: %v", name, err)
		}
		var closed *ssh.OpenChannelError
		if _, err := client.openDirect(testContext(t), Endpoint{Host: "127.0.0.1", Port: 1}, nil); !errors.As(err, &closed) || closed.Reason != ssh.ConnectionFailed {
			t.Errorf("%s: a port without a listener: %v", name, err)
		}
		blocked := openSession(t, client)
		if err := blocked.Start(testContext(t), SessionRequest{Command: "sleep 60"}); err != nil {
			t.Fatal(err)
		}
		if err := client.Close(); err != nil { // with a session under way
			t.Error(err)
		}
		if _, ok := blocked.Wait(); ok {
			t.Errorf("%s: a session outlives its connection", name)
		}
	}
}

// FuzzProxiedPacket has a master send anything to a client in proxy mode.
func FuzzProxiedPacket(f *testing.F) {
	f.Add([]byte("\x00\x5b\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x80\x00"))
	f.Add([]byte("\x00\x5f\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02hi"))
	f.Add([]byte("\x00\x62\x00\x00\x00\x00\x00\x00\x00\x0bexit-status\x00\x00\x00\x00\x05"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		kind, payload, err := decodePacket(frame)
		if err != nil {
			return
		}
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends with the pipe
		defer theirs.Close()
		defer ours.Close()
		p := &proxiedConn{wire: ours, channels: make(map[uint32]*proxiedChannel)}
		c := newProxiedChannel(p)
		p.channels[0] = c
		_ = p.handle(kind, payload) // whatever it says, it must not panic
		if len(c.out)+len(c.errs)+c.room != proxiedWindow {
			t.Errorf("%d and %d bytes queued, room of %d", len(c.out), len(c.errs), c.room)
		}
	})
}

func FuzzProxyPacket(f *testing.F) {
	f.Add([]byte("\x00\x5a\x00\x00\x00\x07session\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x80\x00"))
	f.Add([]byte("\x00\x62\x00\x00\x00\x02\x00\x00\x00\x04exec\x01\x00\x00\x00\x02id"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		kind, payload, err := decodePacket(frame)
		if err != nil {
			return
		}
		if back := appendPacket(nil, kind, payload)[4:]; string(back[1:]) != string(frame[1:]) {
			t.Errorf("%x became %x", frame, back)
		}
		c := &proxyChannel{room: proxyWindow}
		c.changed.L = &c.mu
		_ = c.handle(kind, payload) // whatever it says, it must not panic
		if c.room < 0 || c.room > proxyWindow {
			t.Errorf("room of %d", c.room)
		}
	})
}
