package ssmchannel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// TestNothingBeforeTheHandshake: the agent acknowledges what comes before its handshake is complete, and
// drops it. Whatever the network does to request, response, completion and the port's first words, which may
// all overtake each other, nothing but the response goes out before the completion has come; and the first
// data arrives.
func TestNothingBeforeTheHandshake(t *testing.T) {
	const banner, answer = "SSH-2.0-sshd\r\n", "SSH-2.0-client\r\n"
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			ahead := seed%2 == 1
			f := faults{drop: 0.3, duplicate: 0.3, reorder: 0.5, delay: time.Duration(seed%50) * ms, seed: seed}
			inScene(t, peerOptions{banner: banner}, f, Config{NodeSilence: -1, AnswerAhead: ahead}, func(s *scene) {
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
			conn, err := dialWith(dialing, Session{ID: "s-1"}, Config{Resume: n.resumeSession, AnswerAhead: seed%2 == 1}.populate(), n.dial)
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

func TestHandshake(t *testing.T) {
	dial := func(t *testing.T, opt peerOptions, prepare func(*network)) (p *peer, took time.Duration, err error) {
		synctest.Test(t, func(t *testing.T) {
			p = newPeer(opt)
			n := newNetwork(p, faults{delay: 5 * time.Millisecond})
			if prepare != nil {
				prepare(n)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var agent sync.WaitGroup
			agent.Go(func() { p.run(ctx) })
			started := time.Now()
			conn, dialErr := dialWith(ctx, Session{ID: "s-1"}, Config{Resume: n.resumeSession}.populate(), n.dial)
			if took, err = time.Since(started), dialErr; err == nil {
				conn.Close()
			}
			cancel()
			agent.Wait()
		})
		return p, took, err
	}
	action := func(name string) agentmsg.RequestedAction {
		return agentmsg.RequestedAction{ActionType: name, ActionParameters: json.RawMessage(`{}`)}
	}
	t.Run("unknown action is left out", func(t *testing.T) {
		p, _, err := dial(t, peerOptions{actions: []agentmsg.RequestedAction{action("SessionType"), action("Dance")}}, nil)
		if err != nil || p.answers != 1 {
			t.Errorf("%v, %d answers", err, p.answers)
		}
	})
	t.Run("encryption", func(t *testing.T) {
		p, took, err := dial(t, peerOptions{actions: []agentmsg.RequestedAction{action("SessionType"), action("KMSEncryption")}}, nil)
		if !errors.Is(err, ErrEncryption) || !p.ended || took > time.Second {
			t.Errorf("%v, ended %v, took %v", err, p.ended, took)
		}
	})
	t.Run("agent never comes", func(t *testing.T) {
		_, took, err := dial(t, peerOptions{}, func(n *network) { n.peer.away = true })
		if !errors.Is(err, ErrHandshakeTimeout) || took > 23*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
	t.Run("cut in the middle", func(t *testing.T) {
		once := true
		p, _, err := dial(t, peerOptions{}, func(n *network) {
			n.tap = func(up bool, _ []byte) bool {
				if up && once { // our first acknowledgement
					once = false
					go n.cut()
					return false
				}
				return true
			}
		})
		if err != nil || p.answers != 1 {
			t.Errorf("%v, %d answers", err, p.answers)
		}
	})
	t.Run("no way in", func(t *testing.T) {
		_, took, err := dial(t, peerOptions{}, func(n *network) { n.refuse = &DialError{Err: errors.New("no route")} })
		if err == nil || !strings.Contains(err.Error(), "no route") || took > 2*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
	t.Run("session without handshake", func(t *testing.T) {
		inScene(t, peerOptions{noHandshake: true}, faults{}, Config{}, func(s *scene) { s.expect([]byte("$ ")) })
	})
}
