package sshproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
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

// Our client's proxy mode carries SSH packets of one's own through a stock master.
func TestOurProxyModeOnStockMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	for name, path := range map[string]string{"ours": startMaster(t, n, MasterConfig{}).path, "stock": startStockMaster(t, n)} {
		c := dialMaster(t, path)
		inR, inW, err1 := os.Pipe()
		outR, outW, err2 := os.Pipe()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Proxy(testContext(t), inR, outW); err != nil {
				t.Error(name, err)
			}
			outW.Close()
		})
		if _, err := inW.Write(unhex(t, "00000019 00 5a 00000007 73657373696f6e 00000003 00200000 00008000")); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 10)
		if _, err := io.ReadFull(outR, answer); err != nil || !bytes.Equal(answer[4:], unhex(t, "00 5b 00000003")) {
			t.Errorf("%s: answer %x, %v", name, answer, err)
		}
		inW.Close()
		_, _ = io.Copy(io.Discard, outR)
		wg.Wait()
		outR.Close()
	}
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
