package sshproxy

import (
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/crypto/ssh"
)

// serveSession runs an SSH server of this process whose first session is handled by h, once its
// command has been accepted; the channel is closed after it.
func serveSession(t *testing.T, h func(ch ssh.Channel, reqs <-chan *ssh.Request)) *Client {
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
	go func() { defer close(finished); serveOne(t, theirs, config, h) }()
	c, err := NewClient(testContext(t), ours, Config{User: "u", Host: "node", UserKnownHostsFile: []string{os.DevNull}, StrictHostKeyChecking: "no"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); <-finished })
	return c
}

func serveOne(t *testing.T, conn net.Conn, config *ssh.ServerConfig, h func(ssh.Channel, <-chan *ssh.Request)) {
	server, chans, reqs, err := ssh.NewServerConn(conn, config)
	if err != nil {
		t.Error(err)
		return
	}
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			t.Error(err)
			break
		}
		for req := range reqs {
			_ = req.Reply(true, nil)
			if req.Type == "exec" {
				h(ch, reqs)
				ch.Close()
			}
		}
	}
	_ = server.Wait()
}

func startOn(t *testing.T, c *Client, req SessionRequest) *Session {
	t.Helper()
	s := openSession(t, c)
	req.Command = "x"
	if err := s.Start(testContext(t), req); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestExitStatusForms(t *testing.T) {
	tests := []struct {
		name    string
		request string
		payload []byte
		status  int
		ok      bool
	}{
		{"status", "exit-status", []byte{0, 0, 0, 7}, 7, true},
		{"status beyond a byte", "exit-status", []byte{0, 0, 1, 44}, 44, true},
		{"short status", "exit-status", []byte{0, 7}, 0, false},
		{"signal", "exit-signal", ssh.Marshal(struct {
			Name string
			Core bool
			Text string
			Lang string
		}{"KILL", false, "killed", ""}), 0, false},
		{"nothing", "other", nil, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := serveSession(t, func(ch ssh.Channel, _ <-chan *ssh.Request) {
				_, _ = ch.SendRequest(tt.request, false, tt.payload)
			})
			if status, ok := startOn(t, c, SessionRequest{}).Wait(); status != tt.status || ok != tt.ok {
				t.Errorf("got %d %v, want %d %v", status, ok, tt.status, tt.ok)
			}
		})
	}
}

func TestNodesKeepaliveIsAnswered(t *testing.T) {
	c := serveSession(t, func(ch ssh.Channel, _ <-chan *ssh.Request) {
		if ok, err := ch.SendRequest("keepalive@openssh.com", true, nil); ok || err != nil {
			t.Errorf("got %v %v, want a refusal", ok, err)
		}
	})
	startOn(t, c, SessionRequest{}).Wait()
}

func TestEndOfWriteStopsStdin(t *testing.T) {
	in, feed := io.Pipe()
	c := serveSession(t, func(ch ssh.Channel, reqs <-chan *ssh.Request) {
		if _, err := ch.SendRequest(eowRequest, false, nil); err != nil {
			t.Error(err)
		}
		// The client's reader has gone, and the channel is still open.
		for {
			if _, err := feed.Write([]byte("x")); err != nil {
				break
			}
		}
		_, _ = ch.SendRequest("exit-status", false, []byte{0, 0, 0, 3})
	})
	if status, ok := startOn(t, c, SessionRequest{Stdin: in}).Wait(); status != 3 || !ok {
		t.Errorf("got %d %v, want 3", status, ok)
	}
}

func TestUnaskedAgentChannelIsRefused(t *testing.T) {
	var log logBook
	host, _ := newSigner(t, "ed25519")
	signer, err := ssh.NewSignerFromSigner(host)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(signer)
	ours, theirs := tcpPair(t)
	refusals := make(chan []ssh.RejectionReason, 1)
	go func() {
		var reasons []ssh.RejectionReason
		server, chans, reqs, err := ssh.NewServerConn(theirs, config)
		if err == nil {
			go ssh.DiscardRequests(reqs)
			go func() {
				for range chans {
					continue
				}
			}()
			for _, kind := range []string{agentChannel, "x11"} {
				_, _, err := server.OpenChannel(kind, nil)
				if refused, ok := err.(*ssh.OpenChannelError); ok {
					reasons = append(reasons, refused.Reason)
				}
			}
		}
		refusals <- reasons
	}()
	c, err := NewClient(testContext(t), ours, Config{User: "u", Host: "node", UserKnownHostsFile: []string{os.DevNull}, StrictHostKeyChecking: "no", Logf: log.logf})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := <-refusals
	if len(got) != 2 || got[0] != ssh.Prohibited || got[1] != ssh.UnknownChannelType {
		t.Errorf("got %v", got)
	}
	want := "Warning: ssh server tried agent forwarding.\nWarning: this is probably a break-in attempt by a malicious server."
	if log.news() != want {
		t.Errorf("log %q", log.news())
	}
}
