package sshproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// servePeer runs an SSH server of this process that does what serve makes it do. What serve leaves
// running ends with the connection, before the test does.
func servePeer(t *testing.T, serve func(*ssh.ServerConn, <-chan ssh.NewChannel, <-chan *ssh.Request)) *Client {
	t.Helper()
	host, _ := newSigner(t, "ed25519")
	signer, err := ssh.NewSignerFromSigner(host)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	ours, theirs := tcpPair(t)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		server, chans, reqs, err := ssh.NewServerConn(theirs, config)
		if err != nil {
			t.Error(err)
			return
		}
		serve(server, chans, reqs)
		_ = server.Wait()
	}()
	c, err := NewClient(testContext(t), ours, Config{User: "u", Host: "node", UserKnownHostsFile: []string{os.DevNull}, StrictHostKeyChecking: "no"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); <-finished })
	return c
}

// refuseAll is a node that grants nothing.
func refuseAll(_ *ssh.ServerConn, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		_ = nc.Reject(ssh.Prohibited, "no")
	}
}

// forwardedBody is what a node says of a connection to its listener.
func forwardedBody(host string, port uint32) []byte {
	return ssh.Marshal(struct {
		Host           string
		Port           uint32
		OriginatorHost string
		OriginatorPort uint32
	}{host, port, "192.0.2.7", 1234})
}

func TestForwardRemoteChannelsMatchWhatWasAsked(t *testing.T) {
	peer := make(chan *ssh.ServerConn, 1)
	c := servePeer(t, func(server *ssh.ServerConn, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
		peer <- server
		for req := range reqs {
			_ = req.Reply(true, ssh.Marshal(struct{ Port uint32 }{40000})) // the port counts for port 0 only
		}
	})
	var log logBook
	f := startForwarder(t, c, ForwardConfig{Logf: log.logf, GatewayPorts: true})
	server := <-peer
	echo := Endpoint{Host: "127.0.0.1", Port: portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))}
	for _, at := range []Endpoint{{Port: 8080}, {Host: "*", Port: 8081}, {Host: "192.0.2.1", Port: 8082}, {}, {Path: "/there"}} {
		openForward(t, f, Forward{Kind: ForwardRemote, Listen: at, Connect: echo})
	}
	stream := func(path string) []byte { return ssh.Marshal(struct{ Path, Reserved string }{path, ""}) }
	tests := []struct {
		name, kind string
		body       []byte
		log        string // of a refused one
	}{
		{name: "default address", kind: forwardedTCP, body: forwardedBody("localhost", 8080)},
		{name: "any address", kind: forwardedTCP, body: forwardedBody("", 8081)},
		{name: "an address", kind: forwardedTCP, body: forwardedBody("192.0.2.1", 8082)},
		{name: "allocated port", kind: forwardedTCP, body: forwardedBody("localhost", 40000)},
		{name: "path", kind: forwardedStream, body: stream("/there")},
		{name: "another port", kind: forwardedTCP, body: forwardedBody("localhost", 22),
			log: "WARNING: Server requests forwarding for unknown listen_port 22"},
		{name: "another address", kind: forwardedTCP, body: forwardedBody("192.0.2.9", 8082),
			log: "WARNING: Server requests forwarding for unknown listen_port 8082"},
		{name: "port 0", kind: forwardedTCP, body: forwardedBody("localhost", 0),
			log: "WARNING: Server requests forwarding for unknown listen_port 0"},
		{name: "another path", kind: forwardedStream, body: stream("/here"),
			log: "WARNING: Server requests forwarding for unknown path /here"},
		{name: "empty path", kind: forwardedStream, body: stream(""),
			log: "WARNING: Server requests forwarding for unknown path "},
		{name: "short body", kind: forwardedTCP, body: []byte{0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(log.text())
			ch, reqs, err := server.OpenChannel(tt.kind, tt.body)
			if logged := strings.TrimPrefix(log.text()[before:], "\n"); logged != tt.log {
				t.Errorf("logged %q, want %q", logged, tt.log)
			}
			if refused := tt.log != "" || len(tt.body) < 4; refused {
				var e *ssh.OpenChannelError
				if !errors.As(err, &e) {
					t.Errorf("got %v, want a refusal", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			go ssh.DiscardRequests(reqs)
			defer ch.Close()
			_, err1 := io.WriteString(ch, "word")
			err2 := ch.CloseWrite()
			got, err3 := io.ReadAll(ch)
			if err := errors.Join(err1, err2, err3); err != nil || string(got) != "WORD" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// TestForwardRemoteEarlyConnection has the first connection come together with the answer that chose
// its port, and one for a port that nobody asked for before it.
func TestForwardRemoteEarlyConnection(t *testing.T) {
	outcomes := make(chan error, 2)
	c := servePeer(t, func(server *ssh.ServerConn, _ <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
		for req := range reqs {
			open := func(port uint32) {
				ch, reqs, err := server.OpenChannel(forwardedTCP, forwardedBody("localhost", port))
				if err == nil {
					go ssh.DiscardRequests(reqs)
					_ = ch.Close()
				}
				outcomes <- err
			}
			unknown := make(chan struct{})
			go func() { defer close(unknown); open(41) }()
			_ = req.Reply(true, ssh.Marshal(struct{ Port uint32 }{42}))
			open(42)
			<-unknown
		}
	})
	f := startForwarder(t, c, ForwardConfig{})
	echo := Endpoint{Host: "127.0.0.1", Port: portOf(t, startEcho(t, "tcp4", "127.0.0.1:0"))}
	if port := openForward(t, f, Forward{Kind: ForwardRemote, Connect: echo}); port != 42 {
		t.Errorf("port %d", port)
	}
	first, second := <-outcomes, <-outcomes
	if (first == nil) == (second == nil) {
		t.Errorf("got %v and %v, want one refusal", first, second)
	}
}

func TestForwardRemoteAnswers(t *testing.T) {
	tests := []struct {
		name  string
		at    Endpoint
		ok    bool
		reply []byte
		port  int
		want  string
	}{
		{name: "granted", at: Endpoint{Port: 8080}, ok: true, port: 8080},
		{name: "port chosen", ok: true, reply: []byte{0, 0, 0x30, 0x39}, port: 12345},
		{name: "path", at: Endpoint{Path: "/s"}, ok: true},
		{name: "refused", at: Endpoint{Port: 8080}, want: "remote port forwarding failed for listen port 8080"},
		{name: "path refused", at: Endpoint{Path: "/s"}, want: "remote port forwarding failed for listen path /s"},
		{name: "no port named", ok: true, want: "remote port forwarding failed for listen port 0"},
		{name: "port 0 named", ok: true, reply: make([]byte, 4), want: "remote port forwarding failed for listen port 0"},
		{name: "impossible port", ok: true, reply: []byte{0, 1, 0, 0}, want: "remote port forwarding failed for listen port 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := servePeer(t, func(_ *ssh.ServerConn, _ <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
				for req := range reqs {
					_ = req.Reply(tt.ok, tt.reply)
				}
			})
			f := startForwarder(t, c, ForwardConfig{})
			fwd := Forward{Kind: ForwardRemote, Listen: tt.at, Connect: Endpoint{Host: "x", Port: 1}}
			port, err := f.Open(fwd)
			got := ""
			var text *TextError
			if errors.As(err, &text) {
				got = text.Text
			}
			if port != tt.port || got != tt.want || (err != nil) != (tt.want != "") {
				t.Errorf("got %d, %v", port, err)
			}
			if err := f.Cancel(fwd); (err == nil) != tt.ok != (tt.ok && tt.want != "") {
				t.Errorf("cancel: %v", err)
			}
		})
	}
}

func TestForwardRemoteWithoutATarget(t *testing.T) {
	n := startNode(t, nodeOptions{})
	var log logBook
	c := n.connect(t, n.clientConfig(&log))
	f := startForwarder(t, c, ForwardConfig{Logf: log.logf})
	nobody := freePort(t)
	tests := []struct {
		name string
		to   Endpoint
		want string
	}{
		{"nobody there", Endpoint{Host: "127.0.0.1", Port: nobody}, dialText(Endpoint{Host: "127.0.0.1", Port: nobody}, nil)},
		{"unknown host", Endpoint{Host: "nosuch.invalid", Port: 1}, "connect_to nosuch.invalid: unknown host (Name or service not known)"},
		{"no socket", Endpoint{Path: "/nosuch"}, "connect to /nosuch port -2 failed: No such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(log.text())
			conn := dialPort(t, openForward(t, f, Forward{Kind: ForwardRemote, Connect: tt.to}))
			if got, err := io.ReadAll(conn); len(got) > 0 || err != nil && errno(err) == 0 {
				t.Errorf("got %q, %v", got, err)
			}
			if got := strings.TrimPrefix(log.text()[before:], "\n"); got != tt.want {
				t.Errorf("logged %q, want %q", got, tt.want)
			}
		})
	}
}

// TestForwardEndsWithAConnectionThatIsStuck stops while the node owes an answer to everything.
func TestForwardEndsWithAConnectionThatIsStuck(t *testing.T) {
	asked := make(chan struct{}, 1)
	c := servePeer(t, func(server *ssh.ServerConn, chans <-chan ssh.NewChannel, reqs <-chan *ssh.Request) {
		<-chans
		<-reqs
		asked <- struct{}{}
	})
	f := NewForwarder(c, ForwardConfig{})
	conn := dialPort(t, openForward(t, f, Forward{Kind: ForwardLocal, Connect: Endpoint{Host: "x", Port: 1}}))
	opened := make(chan error, 1)
	go func() {
		_, err := f.Open(Forward{Kind: ForwardRemote, Connect: Endpoint{Host: "x", Port: 1}})
		opened <- err
	}()
	<-asked
	f.Stop()
	c.Close()
	f.Close()
	if err := <-opened; !errors.Is(err, net.ErrClosed) {
		t.Errorf("open: %v", err)
	}
	if got, err := io.ReadAll(conn); len(got) > 0 || err != nil && errno(err) == 0 {
		t.Errorf("got %q, %v", got, err)
	}
}
