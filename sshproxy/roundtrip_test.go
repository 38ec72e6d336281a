package sshproxy

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestRoundTrips counts flights: on a link of fake time nothing but waiting for the peer takes any.
func TestRoundTrips(t *testing.T) {
	const rtt = 100 * time.Millisecond
	file, public := writeKey(t, t.TempDir(), "id", "ed25519", "")
	synctest.Test(t, func(t *testing.T) {
		server := &quietServer{delay: rtt / 2, config: &ssh.ServerConfig{
			PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
				if !sameKey(key, public) {
					return nil, context.Canceled
				}
				return nil, nil
			}}}
		began := time.Now()
		count := func(name string, want float64) {
			t.Helper()
			if got := float64(time.Since(began)) / float64(rtt); got != want {
				t.Errorf("%s: %v round trips, want %v", name, got, want)
			}
			began = time.Now()
		}
		c := server.start(t, Config{IdentityFile: []Identity{{Path: file}}, PubkeyAuthentication: true})
		// Version lines and KEXINIT cross: one. Then one each for the key exchange, the service, "none",
		// the key's query and its signature.
		count("handshake", 6)

		open := func() *Session {
			s, err := c.OpenSession(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		start := func(s *Session, req SessionRequest) {
			req.Command, req.Env = "x", []string{"A=b", "C=d"}
			if err := s.Start(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		s := open()
		count("open", 1)
		start(s, SessionRequest{})
		count("exec with environment", 1)
		s = open()
		began = time.Now()
		start(s, SessionRequest{TTY: true})
		count("first terminal", 2)
		s = open()
		began = time.Now()
		start(s, SessionRequest{TTY: true})
		count("later terminal", 1)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}
