package ssmchannel

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNothingBeforeTheHandshake: the agent acknowledges what comes before its handshake is complete, and
// drops it. Whatever the network does to request, response, completion and the port's first words, which may
// all overtake each other, nothing but the response goes out before the completion has come; and the first
// data arrives.
func TestNothingBeforeTheHandshake(t *testing.T) {
	const banner, answer = "SSH-2.0-sshd\r\n", "SSH-2.0-client\r\n"
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			f := faults{drop: 0.3, duplicate: 0.3, reorder: 0.5, delay: time.Duration(seed%50) * ms, seed: seed}
			inScene(t, peerOptions{banner: banner}, f, Config{NodeSilence: -1}, func(s *scene) {
				s.conn.Resize(80, 24)
				s.write([]byte(answer))
				s.expect([]byte(banner))
				for string(s.peer.received()) != answer {
					if isClosed(s.conn.Done()) {
						t.Fatalf("the peer has %q; %v", s.peer.received(), s.conn.Err())
					}
					time.Sleep(10 * ms)
				}
				if s.peer.early != 0 || s.peer.answers != 1 {
					t.Errorf("%d messages too early, %d responses", s.peer.early, s.peer.answers)
				}
			})
		})
	}
}

// TestGivenUpHandshake: nor does a Dial that is given up send anything, the flag that ends a session
// included.
func TestGivenUpHandshake(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(peerOptions{banner: "SSH-2.0-sshd\r\n"})
			n := newNetwork(p, faults{drop: 0.3, reorder: 0.3, delay: 10 * ms, seed: seed})
			ctx, cancel := context.WithCancel(t.Context())
			var agent sync.WaitGroup
			agent.Go(func() { p.run(ctx) })
			patience := time.Duration(rand.New(rand.NewPCG(seed, 3)).Int64N(int64(500 * ms)))
			dialing, giveUp := context.WithTimeout(ctx, patience)
			conn, err := dialWith(dialing, Session{ID: "s-1"}, Config{Resume: n.resumeSession}.populate(), n.dial)
			giveUp()
			if err == nil {
				conn.Close()
			}
			if p.early != 0 {
				t.Errorf("seed %d, %v: %d messages too early", seed, patience, p.early)
			}
			cancel()
			agent.Wait()
		})
	}
}
