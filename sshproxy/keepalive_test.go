package sshproxy

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// quietServer is an SSH server inside a bubble. It counts keepalives, and answers them while asked to.
type quietServer struct {
	answer     atomic.Bool
	delay      time.Duration     // of each direction
	config     *ssh.ServerConfig // nil: anybody may log in
	other      ssh.Signer        // a host key besides its own, told and proven; nil: none
	keepalives atomic.Int32
}

// start serves one end of a pipe and returns a client on the other.
func (q *quietServer) start(t *testing.T, cfg Config) *Client {
	t.Helper()
	host, _ := newSigner(t, "ed25519")
	signer, err := ssh.NewSignerFromSigner(host)
	if err != nil {
		t.Fatal(err)
	}
	config := q.config
	if config == nil {
		config = &ssh.ServerConfig{NoClientAuth: true}
	}
	config.AddHostKey(signer)
	ours, theirs := bufferedPipe(t, q.delay)
	go q.serve(theirs, config, signer.PublicKey())
	cfg.User, cfg.Host = "u", "node"
	if len(cfg.UserKnownHostsFile) == 0 {
		cfg.UserKnownHostsFile, cfg.StrictHostKeyChecking = []string{os.DevNull}, "no"
	} else {
		writeFile(t, cfg.UserKnownHostsFile[0], "node "+string(ssh.MarshalAuthorizedKey(signer.PublicKey())), 0o600)
	}
	c, err := NewClient(t.Context(), ours, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (q *quietServer) serve(conn net.Conn, config *ssh.ServerConfig, own ssh.PublicKey) {
	defer conn.Close()
	server, chans, reqs, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go func() {
		for nc := range chans {
			if _, reqs, err := nc.Accept(); err == nil { // it ends with the connection
				go func() {
					for req := range reqs {
						_ = req.Reply(true, nil)
					}
				}()
			}
		}
	}()
	go func() {
		if q.other != nil {
			list := appendString(appendString(nil, own.Marshal()), q.other.PublicKey().Marshal())
			_, _, _ = server.SendRequest(hostKeysRequest, false, list)
		}
		for req := range reqs {
			if req.Type == hostKeysProveReq {
				_ = req.Reply(true, proofOf(q.other, q.other.PublicKey(), server.SessionID()))
				continue
			}
			q.keepalives.Add(1)
			if req.Type == keepaliveRequest && q.answer.Load() {
				_ = req.Reply(false, nil)
			}
		}
	}()
	_ = server.Wait()
}

func TestSilentServerIsGivenUp(t *testing.T) {
	tests := []struct {
		name    string
		answers bool
		after   time.Duration // zero: it lives
	}{
		{name: "silent", after: 40 * time.Second},
		{name: "answering", answers: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &quietServer{}
				server.answer.Store(tt.answers)
				c := server.start(t, Config{ServerAliveInterval: 10 * time.Second, ServerAliveCountMax: 3})
				began := time.Now()
				select {
				case <-c.Done():
				case <-time.After(10 * time.Minute):
				}
				elapsed := time.Since(began)
				if tt.after == 0 {
					if c.Err() != nil {
						t.Errorf("ended after %v: %v", elapsed, c.Err())
					}
				} else if elapsed != tt.after || c.Err() == nil || c.Err().Error() != "Timeout, server node not responding." {
					t.Errorf("after %v: %v, want %v", elapsed, c.Err(), tt.after)
				}
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestOpenSessionFeedsTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &quietServer{}
		server.answer.Store(true)
		c := server.start(t, Config{ChannelKeepAlive: 45 * time.Second})
		s, err := c.OpenSession(t.Context()) // in reserve
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := server.keepalives.Load(); n != 0 {
			t.Errorf("%d keepalives without a session", n)
		}
		if err := s.Start(t.Context(), SessionRequest{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := server.keepalives.Load(); n < 12 || n > 14 {
			t.Errorf("%d keepalives in 10 minutes of silence, want one in 45 s", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		s.Wait()
		if !errors.Is(c.Err(), net.ErrClosed) {
			t.Errorf("got %v", c.Err())
		}
	})
}

func TestNoVersionInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := bufferedPipe(t, 0)
		defer theirs.Close()
		_, err := NewClient(t.Context(), ours, Config{User: "u", Host: "node", ConnectTimeout: 10 * time.Second})
		want := "Connection timed out during banner exchange\nConnection to UNKNOWN port 65535 timed out"
		if err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
	})
}
