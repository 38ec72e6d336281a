package sshproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startEcho listens and sends back what it gets, upper case, until the other side's EOF.
func startEcho(t *testing.T, network, address string) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
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
			wg.Go(func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				_, _ = c.Write(bytes.ToUpper(all))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr()
}

func portOf(t *testing.T, a net.Addr) int {
	t.Helper()
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		t.Fatalf("%v has no port", a)
	}
	return tcp.Port
}

// freePort returns one that nobody listened on a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(t, l.Addr())
}

// exchange sends a word with EOF after it and returns the answer.
func exchange(t *testing.T, network, address, preface string) (string, error) {
	t.Helper()
	c, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, preface+"word"); err != nil {
		return "", err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	all, err := io.ReadAll(c)
	return string(all), err
}

func TestStockForwardsOnOurMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	dir := shortDir(t)
	echo := portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))
	echoPort := string([]byte{byte(echo >> 8), byte(echo)}) // as SOCKS has it
	startEcho(t, "unix", filepath.Join(dir, "echo"))
	port := freePort(t)
	local := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	tests := []struct {
		name, flag, forward, network, address, preface, answer string
	}{
		{name: "local", flag: "-L", forward: fmt.Sprintf("%d:127.0.0.1:%d", port, echo), network: "tcp", address: local},
		{name: "local to unix", flag: "-L", forward: fmt.Sprintf("%d:%s/echo", port, dir), network: "tcp", address: local},
		{name: "unix to unix", flag: "-L", forward: fmt.Sprintf("%s/here:%s/echo", dir, dir), network: "unix", address: dir + "/here"},
		{name: "remote", flag: "-R", forward: fmt.Sprintf("%d:127.0.0.1:%d", port, echo), network: "tcp", address: local},
		{name: "remote unix", flag: "-R", forward: fmt.Sprintf("%s/there:%s/echo", dir, dir), network: "unix", address: dir + "/there"},
		{name: "dynamic, SOCKS 4", flag: "-D", forward: strconv.Itoa(port), network: "tcp", address: local,
			preface: "\x04\x01" + echoPort + "\x7f\x00\x00\x01user\x00", answer: "\x00\x5a\x00\x00\x00\x00\x00\x00"},
		{name: "dynamic, SOCKS 5 by name", flag: "-D", forward: strconv.Itoa(port), network: "tcp", address: local,
			preface: "\x05\x01\x00\x05\x01\x00\x03\x09127.0.0.1" + echoPort,
			answer:  "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"},
		{name: "remote dynamic", flag: "-R", forward: strconv.Itoa(port), network: "tcp", address: local,
			preface: "\x05\x01\x00\x05\x01\x00\x03\x09127.0.0.1" + echoPort,
			answer:  "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for range 2 { // the second changes nothing
				if got := runCommand(t, stockSSH(t, m.path, "-O", "forward", tt.flag, tt.forward, "x")); got != (result{}) {
					t.Fatalf("forward: %+v", got)
				}
			}
			if got, err := exchange(t, tt.network, tt.address, tt.preface); err != nil || got != tt.answer+"WORD" {
				t.Errorf("got %q, %v", got, err)
			}
			if got := runCommand(t, stockSSH(t, m.path, "-O", "cancel", tt.flag, tt.forward, "x")); got != (result{}) {
				t.Errorf("cancel: %+v", got)
			}
			await(t, "the listener's end", func() bool {
				_, err := exchange(t, tt.network, tt.address, "")
				return err != nil
			})
			_ = os.Remove(filepath.Join(dir, "there")) // sshd leaves it
			want := "mux_client_forward: forwarding request failed: port not forwarded\r\nmuxclient: master cancel forward request failed\r\n"
			if got := runCommand(t, stockSSH(t, m.path, "-O", "cancel", tt.flag, tt.forward, "x")); got != (result{stderr: want}) {
				t.Errorf("second cancel: %+v", got)
			}
		})
	}
}

func TestStockForwardFailures(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	echo := startEcho(t, "tcp", "localhost:0")
	busy4 := startEcho(t, "tcp4", "127.0.0.1:0")
	busy := portOf(t, busy4)
	if l, err := net.Listen("tcp6", net.JoinHostPort("::1", strconv.Itoa(busy))); err == nil {
		defer l.Close() // else one address would be enough
	}
	failed := func(reason string) result {
		return result{status: 255,
			stderr: "mux_client_forward: forwarding request failed: " + reason + "\r\nmuxclient: master forward request failed\r\n"}
	}
	tests := []struct {
		name string
		args []string
		want result
	}{
		{name: "local port busy", args: []string{"-O", "forward", "-L", fmt.Sprintf("%d:localhost:%d", busy, portOf(t, echo))},
			want: failed("Port forwarding failed")},
		{name: "remote port busy", args: []string{"-O", "forward", "-R", fmt.Sprintf("%d:localhost:%d", busy, portOf(t, echo))},
			want: failed(fmt.Sprintf("remote port forwarding failed for listen port %d", busy))},
		{name: "stdio refused", args: []string{"-W", fmt.Sprintf("127.0.0.1:%d", freePort(t))},
			want: result{stderr: "Stdio forwarding request failed: Session open refused by peer\r\n", status: 255}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := runCommand(t, stockSSH(t, m.path, append(tt.args, "x")...)); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRemotePortZero(t *testing.T) {
	// With both families sshd chooses a port that is free in one, and does without the other.
	n := startNode(t, nodeOptions{lines: []string{"AddressFamily inet"}})
	m := startMaster(t, n, MasterConfig{})
	echo := portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))
	forward := fmt.Sprintf("0:127.0.0.1:%d", echo)
	first := runCommand(t, stockSSH(t, m.path, "-O", "forward", "-R", forward, "x"))
	port := strings.TrimSpace(first.stdout)
	if first.status != 0 || first.stdout != port+"\n" || port == "" {
		t.Fatalf("got %+v", first)
	}
	if again := runCommand(t, stockSSH(t, m.path, "-O", "forward", "-R", forward, "x")); again != first {
		t.Errorf("again: %+v, want %+v", again, first)
	}
	if got, err := exchange(t, "tcp", "127.0.0.1:"+port, ""); got != "WORD" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got := runCommand(t, stockSSH(t, m.path, "-O", "cancel", "-R", forward, "x")); got != (result{}) {
		t.Errorf("cancel: %+v", got)
	}
}

func TestStdioForward(t *testing.T) {
	n := startNode(t, nodeOptions{})
	echo := startEcho(t, "tcp4", "127.0.0.1:0").String()
	m := startMaster(t, n, MasterConfig{})
	cmd := stockSSH(t, m.path, "-W", echo, "x")
	cmd.Stdin = strings.NewReader("through our master")
	if got := runCommand(t, cmd); got != (result{stdout: "THROUGH OUR MASTER"}) {
		t.Errorf("got %+v", got)
	}

	host, port, err := net.SplitHostPort(echo)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"ours": m.path, "stock": startStockMaster(t, n)} {
		inR, inW, err1 := os.Pipe()
		outR, outW, err2 := os.Pipe()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		s, err := dialMaster(t, path).NewStdioForward(testContext(t), Endpoint{Host: host, Port: number}, inR, outW)
		inR.Close()
		outW.Close()
		if err != nil {
			t.Fatal(name, err)
		}
		_, err = io.WriteString(inW, "by our client")
		inW.Close()
		got, err2 := io.ReadAll(outR)
		outR.Close()
		if err := errors.Join(err, err2); err != nil || string(got) != "BY OUR CLIENT" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, ok := s.Wait(); ok {
			t.Errorf("%s: a status for a stdio forward", name)
		}
	}
}

func TestOurForwards(t *testing.T) {
	n := startNode(t, nodeOptions{})
	echo := portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))
	for name, path := range map[string]string{"ours": startMaster(t, n, MasterConfig{}).path, "stock": startStockMaster(t, n)} {
		t.Run(name, func(t *testing.T) {
			c := dialMaster(t, path)
			remote := Forward{Kind: ForwardRemote, Connect: Endpoint{Host: "127.0.0.1", Port: echo}}
			port, err := c.OpenForward(testContext(t), remote)
			if err != nil || port == 0 {
				t.Fatalf("port %d, %v", port, err)
			}
			local := Forward{Kind: ForwardLocal, Listen: Endpoint{Port: freePort(t)}, Connect: Endpoint{Host: "127.0.0.1", Port: port}}
			if _, err := c.OpenForward(testContext(t), local); err != nil {
				t.Fatal(err)
			}
			// There and back again.
			if got, err := exchange(t, "tcp", fmt.Sprintf("127.0.0.1:%d", local.Listen.Port), ""); got != "WORD" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			for _, fwd := range []Forward{local, remote} {
				if err := c.CancelForward(testContext(t), fwd); err != nil {
					t.Errorf("cancelling %+v: %v", fwd, err)
				}
			}
			err = c.CancelForward(testContext(t), local)
			if err == nil || err.Error() != "mux_client_forward: forwarding request failed: port not forwarded" {
				t.Errorf("second cancel: %v", err)
			}
			if name == "stock" {
				return // it drops a client that asks for nonsense
			}
			_, err = c.OpenForward(testContext(t), Forward{Kind: ForwardLocal, Listen: Endpoint{Port: 70000}})
			if err == nil || err.Error() != "mux_client_forward: forwarding request failed: Invalid forwarding request" {
				t.Errorf("invalid: %v", err)
			}
		})
	}
}

func TestForwardsEndWithTheirLastClient(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{ForwardsEndWithClient: true})
	echo := portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))
	fwd := Forward{Kind: ForwardLocal, Listen: Endpoint{Port: freePort(t)}, Connect: Endpoint{Host: "127.0.0.1", Port: echo}}
	address := fmt.Sprintf("127.0.0.1:%d", fwd.Listen.Port)
	first, second := dialMaster(t, m.path), dialMaster(t, m.path)
	for _, c := range []*MuxClient{first, second} {
		if _, err := c.OpenForward(testContext(t), fwd); err != nil {
			t.Fatal(err)
		}
	}
	first.Close()
	await(t, "the first client's end", func() bool { return m.clientCount() == 1 })
	if got, err := exchange(t, "tcp", address, ""); got != "WORD" || err != nil {
		t.Errorf("with the second client: %q, %v", got, err)
	}
	second.Close()
	await(t, "the forward's end", func() bool {
		_, err := exchange(t, "tcp", address, "")
		return err != nil
	})
}

func TestForwardedConnectionKeepsTheMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{PersistSet: true, Persist: 100 * time.Millisecond})
	echo := portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))
	fwd := Forward{Kind: ForwardLocal, Listen: Endpoint{Port: freePort(t)}, Connect: Endpoint{Host: "127.0.0.1", Port: echo}}
	c := dialMaster(t, m.path)
	if _, err := c.OpenForward(testContext(t), fwd); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", fwd.Listen.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	await(t, "the connection to be carried", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.holds > 0
	})
	if got := m.Connections(); len(got) != 1 || !strings.HasPrefix(got[0], "local forward ") {
		t.Errorf("open connections: %q", got)
	}
	c.Close()
	timer := time.NewTimer(300 * time.Millisecond)
	<-timer.C
	if _, err := io.WriteString(conn, "still here"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "STILL HERE" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	<-m.done
	if m.err != nil {
		t.Error(m.err)
	}
}

// script is the two directions of a SOCKS client that has said all at once.
type script struct {
	io.Reader
	bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func TestSOCKS(t *testing.T) {
	tests := []struct {
		name, request string
		to            Endpoint
		rest          string
		bad           bool
	}{
		{name: "4", request: "\x04\x01\x00\x50\x0a\x01\x02\x03me\x00rest", to: Endpoint{Host: "10.1.2.3", Port: 80}, rest: "rest"},
		{name: "4A", request: "\x04\x01\x01\xbb\x00\x00\x00\x01\x00a.example\x00rest", to: Endpoint{Host: "a.example", Port: 443}, rest: "rest"},
		{name: "4 bind", request: "\x04\x02\x00\x50\x0a\x01\x02\x03\x00", bad: true},
		{name: "4 endless user", request: "\x04\x01\x00\x50\x0a\x01\x02\x03" + strings.Repeat("u", 1000), bad: true},
		{name: "5 address", request: "\x05\x02\x01\x00\x05\x01\x00\x01\x0a\x01\x02\x03\x00\x16rest", to: Endpoint{Host: "10.1.2.3", Port: 22}, rest: "rest"},
		{name: "5 version 6 address", request: "\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x16", to: Endpoint{Host: "::1", Port: 22}},
		{name: "5 name", request: "\x05\x01\x00\x05\x01\x00\x03\x09a.example\x00\x16", to: Endpoint{Host: "a.example", Port: 22}},
		{name: "5 password wanted", request: "\x05\x01\x02", bad: true},
		{name: "5 cut", request: "\x05\x01\x00\x05\x01\x00\x03\x09a.ex", bad: true},
		{name: "http", request: "GET / HTTP/1.1\r\n", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{Reader: strings.NewReader(tt.request)}
			req, err := acceptSOCKS(s)
			to := req.to
			if tt.bad {
				if err == nil {
					t.Errorf("accepted %v", to)
				}
				return
			}
			rest, _ := io.ReadAll(s.Reader)
			if err != nil || to != tt.to || string(rest) != tt.rest {
				t.Errorf("got %v, rest %q, %v", to, rest, err)
			}
		})
	}
}

func FuzzSOCKS(f *testing.F) {
	f.Add([]byte("\x04\x01\x01\xbb\x00\x00\x00\x01\x00a.example\x00rest"))
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x09a.example\x00\x16"))
	f.Fuzz(func(t *testing.T, request []byte) {
		from := bytes.NewReader(request)
		s := &script{Reader: from}
		req, err := acceptSOCKS(s)
		if err != nil {
			return
		}
		if to := req.to; !to.valid() || to.Host == "" || len(to.Host) > socksNameLimit {
			t.Errorf("accepted %v", to)
		}
		// The same again, as the one form of version 5 that names hosts, with something behind it.
		again := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(req.to.Host))}, req.to.Host...)
		again = append(again, byte(req.to.Port>>8), byte(req.to.Port), 'x')
		from.Reset(again)
		if same, err := acceptSOCKS(s); err != nil || same.to != req.to || from.Len() != 1 {
			t.Errorf("%v again: %v, %v, %d bytes left", req.to, same.to, err, from.Len())
		}
	})
}
