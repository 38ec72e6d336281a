package ssmchannel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// scene is a connection to a peer over an in-memory network, in a bubble of
// synthetic time.
type scene struct {
	*testing.T
	net  *network
	peer *peer
	conn *Conn
	cfg  Config
}

// inScene dials and plays; a nil play expects only the dial.
func inScene(t *testing.T, opt peerOptions, f faults, cfg Config, play func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(opt)
		s := &scene{T: t, peer: p, net: newNetwork(p, f), cfg: cfg}
		ctx, cancel := context.WithCancel(t.Context())
		var agent sync.WaitGroup
		agent.Go(func() { p.run(ctx) })
		if s.cfg.Resume == nil {
			s.cfg.Resume = s.net.resumeSession
		}
		s.cfg = s.cfg.populate()
		conn, err := dialWith(ctx, Session{ID: "s-1"}, s.cfg, s.net.dial)
		if err != nil {
			t.Fatal(err)
		}
		s.conn = conn
		play(s)
		conn.Close()
		cancel()
		agent.Wait()
	})
}

func (s *scene) write(b []byte) {
	s.Helper()
	if _, err := s.conn.Write(b); err != nil {
		s.Fatal(err)
	}
}

// expect reads exactly want.
func (s *scene) expect(want []byte) {
	s.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(s.conn, got); err != nil {
		s.Fatalf("after %d bytes of %d: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		s.Fatal("other bytes were read")
	}
}

// expectError reads until an error comes and compares it.
func (s *scene) expectError(want error) {
	s.Helper()
	_, err := io.Copy(io.Discard, s.conn)
	if !errors.Is(err, want) {
		s.Fatalf("read ended with %v, want %v", err, want)
	}
}

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	chacha := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	chacha.Read(b)
	return b
}

// TestFaults is the model test: whatever the network does, both readers see
// exactly what was written.
func TestFaults(t *testing.T) {
	tests := []struct {
		name   string
		faults faults
		cuts   time.Duration // between cuts; 0: none
	}{
		{"none", faults{}, 0},
		{"delay", faults{delay: 50 * time.Millisecond}, 0},
		{"loss 1 %", faults{delay: 5 * time.Millisecond, drop: 0.01}, 0},
		{"loss 10 %", faults{delay: 5 * time.Millisecond, drop: 0.1}, 0},
		{"duplicates", faults{duplicate: 0.3}, 0},
		{"reordering", faults{delay: 5 * time.Millisecond, reorder: 0.2}, 0},
		{"cuts", faults{delay: 20 * time.Millisecond}, 100 * time.Millisecond},
		{"everything", faults{delay: 10 * time.Millisecond, drop: 0.03, duplicate: 0.05, reorder: 0.1}, 200 * time.Millisecond},
	}
	for _, tt := range tests {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(tt.name, "/", seed), func(t *testing.T) {
				tt.faults.seed = seed
				inScene(t, peerOptions{}, tt.faults, Config{NodeSilence: -1}, func(s *scene) {
					s.transfer(tt.cuts, seed)
					st := s.conn.Stats()
					if lossy := tt.faults.drop > 0 || tt.cuts > 0; lossy && st.Retransmissions == 0 {
						t.Error("nothing was lost: the test tests nothing")
					}
					if tt.faults.duplicate > 0 && st.Duplicates == 0 || tt.cuts > 0 && st.Resumes == 0 {
						t.Errorf("the faults did not happen: %+v", st)
					}
				})
			})
		}
	}
}

// transfer sends bytes both ways at once.
func (s *scene) transfer(cuts time.Duration, seed uint64) {
	up, down := randomBytes(300_000, seed), randomBytes(60_000, seed+100)
	ctx, stop := context.WithCancel(s.Context())
	var others sync.WaitGroup
	if cuts > 0 {
		others.Go(func() {
			wait(ctx, 15*time.Millisecond)
			for ctx.Err() == nil {
				s.net.cut()
				wait(ctx, cuts)
			}
		})
	}
	others.Go(func() {
		random := rand.New(rand.NewPCG(seed, 2))
		for rest := up; len(rest) > 0; {
			n := min(1+random.IntN(5000), len(rest))
			if _, err := s.conn.Write(rest[:n]); err != nil {
				s.Error(err)
				return
			}
			rest = rest[n:]
		}
	})
	s.peer.write(down)
	s.expect(down)
	for len(s.peer.received()) < len(up) {
		if wait(s.Context(), 50*time.Millisecond) != nil {
			s.Fatal("the upload never ended")
		}
	}
	stop()
	others.Wait()
	if !bytes.Equal(s.peer.received(), up) {
		s.Fatal("the peer has other bytes")
	}
}

func TestFirstDataRefused(t *testing.T) {
	tests := []struct {
		name   string
		delay  time.Duration // one way
		refuse time.Duration
		within time.Duration
	}{
		{"no delay", 0, 5 * time.Millisecond, 40 * time.Millisecond},
		{"20 ms round trip", 10 * time.Millisecond, 5 * time.Millisecond, 80 * time.Millisecond},
		{"100 ms round trip", 50 * time.Millisecond, 5 * time.Millisecond, 250 * time.Millisecond},
		{"slow dial", 5 * time.Millisecond, 200 * time.Millisecond, 420 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opt := peerOptions{echo: true, refuseFor: tt.refuse + tt.delay}
			inScene(t, opt, faults{delay: tt.delay}, Config{}, func(s *scene) {
				started := time.Now()
				s.write([]byte("SSH-2.0-Test\r\n"))
				s.expect([]byte("SSH-2.0-Test\r\n"))
				if took := time.Since(started); took > tt.within {
					t.Errorf("took %v, want at most %v", took, tt.within)
				}
			})
		})
	}
}

func TestNodeSilent(t *testing.T) {
	t.Run("nothing is acknowledged", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{}, func(s *scene) {
			s.write([]byte("x"))
			s.expect([]byte("x"))
			time.Sleep(time.Minute) // an idle node is not a silent one
			s.peer.setAway(true)
			started := time.Now()
			s.write([]byte("y"))
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took < 15*time.Second || took > 16*time.Second {
				t.Errorf("noticed after %v", took)
			}
			if repeats := s.conn.Stats().Retransmissions; repeats > 12 {
				t.Errorf("%d repeats to a silent node", repeats)
			}
		})
	})
	t.Run("pause that stays", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
			s.net.inject(publication(agentmsg.PausePublication))
			started := time.Now()
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took != 15*time.Second {
				t.Errorf("noticed after %v", took)
			}
		})
	})
	t.Run("port never spoke", func(t *testing.T) {
		inScene(t, peerOptions{refuseFor: time.Hour}, faults{}, Config{}, func(s *scene) {
			s.write([]byte("SSH-2.0-Test\r\n"))
			<-s.conn.Done()
			if err := s.conn.Err(); !errors.Is(err, ErrNodeSilent) || !strings.Contains(err.Error(), "port 22") {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("heard, but never acknowledging", func(t *testing.T) {
		inScene(t, peerOptions{refuseFor: time.Hour}, faults{}, Config{}, func(s *scene) {
			var chatter sync.WaitGroup
			chatter.Go(func() {
				for !isClosed(s.conn.Done()) {
					s.peer.write([]byte("still here"))
					time.Sleep(time.Second)
				}
			})
			started := time.Now()
			s.write([]byte("x"))
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took > giveUp+20*time.Second {
				t.Errorf("took %v", took)
			}
			chatter.Wait()
		})
	})
	t.Run("repeating itself, but never acknowledging", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{}, func(s *scene) {
			s.write([]byte("x"))
			s.expect([]byte("x"))
			s.peer.setAway(true)
			again := agentmsg.AppendMessage(nil, &agentmsg.Message{
				Type: agentmsg.OutputStreamData, CreatedMillis: 1, PayloadType: agentmsg.Output, Payload: []byte("x"),
			})
			var repeats sync.WaitGroup
			repeats.Go(func() {
				for !isClosed(s.conn.Done()) {
					s.net.inject(again)
					time.Sleep(100 * time.Millisecond)
				}
			})
			started := time.Now()
			s.write([]byte("y"))
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took < 15*time.Second || took > 16*time.Second {
				t.Errorf("noticed after %v", took)
			}
			repeats.Wait()
		})
	})
	t.Run("switched off", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{NodeSilence: -1}, func(s *scene) {
			s.peer.setAway(true)
			s.write([]byte("x"))
			time.Sleep(5 * time.Minute)
			s.peer.setAway(false)
			s.expect([]byte("x"))
		})
	})
}

func TestPauseAndStart(t *testing.T) {
	inScene(t, peerOptions{echo: true}, faults{delay: time.Millisecond}, Config{}, func(s *scene) {
		s.peer.setAway(true)
		s.net.inject(publication(agentmsg.PausePublication))
		synctest.Wait()
		if !s.conn.Paused() || s.conn.Stats().PausedSince.IsZero() {
			t.Error("not paused")
		}
		data := randomBytes(20_000, 1)
		s.write(data)
		time.Sleep(10 * time.Second)
		if sent := s.conn.Stats().MessagesSent; sent > 8 {
			t.Errorf("%d messages sent to a peer that is away", sent)
		}
		s.peer.setAway(false)
		s.net.inject(publication(agentmsg.StartPublication))
		started := time.Now()
		s.expect(data)
		if took := time.Since(started); took > 100*time.Millisecond {
			t.Errorf("took %v after the start", took)
		}
		if s.conn.Paused() {
			t.Error("still paused")
		}
	})
}

func TestResume(t *testing.T) {
	t.Run("outage of 30 s", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{delay: 10 * time.Millisecond}, Config{}, func(s *scene) {
			s.net.set(func() { s.net.resume, s.net.refuse = errors.New("API down"), errors.New("gateway down") })
			s.net.cut()
			data := randomBytes(5000, 1)
			s.write(data)
			time.Sleep(20 * time.Second)
			if s.conn.Stats().LostSince.IsZero() {
				t.Error("the loss does not show")
			}
			s.net.set(func() { s.net.resume = nil })
			time.Sleep(10 * time.Second)
			s.net.set(func() { s.net.refuse = nil })
			s.expect(data)
			if n := s.net.resumes; n < 5 || n > 30 {
				t.Errorf("%d attempts in 30 s", n)
			}
			if st := s.conn.Stats(); st.Resumes != 1 || !st.LostSince.IsZero() {
				t.Errorf("stats %+v", st)
			}
		})
	})
	t.Run("session is gone", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
			s.net.set(func() { s.net.resume = fmt.Errorf("DoesNotExist: %w", ErrSessionGone) })
			s.net.cut()
			s.expectError(ErrSessionGone)
			if s.net.resumes != 1 {
				t.Errorf("%d attempts", s.net.resumes)
			}
		})
	})
	t.Run("empty token", func(t *testing.T) {
		cfg := Config{Resume: func(context.Context, string) (Session, error) { return Session{ID: "s-1"}, nil }}
		inScene(t, peerOptions{}, faults{}, cfg, func(s *scene) {
			s.net.cut()
			s.expectError(ErrSessionGone)
		})
	})
	t.Run("gives up", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{ResumeFor: time.Minute}, func(s *scene) {
			s.net.set(func() { s.net.resume = errors.New("API down") })
			s.net.cut()
			started := time.Now()
			s.expectError(ErrLost)
			if took := time.Since(started); took < time.Minute || took > 66*time.Second {
				t.Errorf("gave up after %v", took)
			}
		})
	})
	t.Run("links that open and die", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{ResumeFor: time.Minute}, func(s *scene) {
			stop := make(chan struct{})
			var cutter sync.WaitGroup
			cutter.Go(func() {
				for !isClosed(stop) {
					s.net.cut()
					time.Sleep(10 * time.Millisecond)
				}
			})
			started := time.Now()
			s.expectError(ErrLost)
			close(stop)
			cutter.Wait()
			if took := time.Since(started); took > 3*time.Minute || s.net.resumes > 100 {
				t.Errorf("%d attempts in %v", s.net.resumes, took)
			}
		})
	})
	t.Run("hourly close of an idle connection", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{ResumeFor: time.Minute}, func(s *scene) {
			for range 5 {
				time.Sleep(time.Hour)
				s.net.cut()
			}
			s.write([]byte("x"))
			s.expect([]byte("x"))
		})
	})
}

func TestBlackHole(t *testing.T) {
	tests := []struct {
		name   string
		write  bool
		within time.Duration
	}{
		{"noticed by ping", false, 26 * time.Second},
		{"noticed sooner with data on its way", true, 14 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inScene(t, peerOptions{echo: true}, faults{delay: time.Millisecond}, Config{}, func(s *scene) {
				s.write([]byte("a"))
				s.expect([]byte("a"))
				s.net.set(func() {
					for _, l := range s.net.links {
						l.deaf.Store(true)
					}
					s.net.tap = func(bool, []byte) bool { return false }
				})
				if tt.write {
					s.write([]byte("b"))
				}
				started := time.Now()
				for s.conn.Stats().LostSince.IsZero() && s.conn.Stats().Resumes == 0 {
					time.Sleep(10 * time.Millisecond)
				}
				if took := time.Since(started); took > tt.within {
					t.Errorf("noticed after %v", took)
				}
				s.net.set(func() { s.net.tap = nil })
				if !tt.write {
					s.write([]byte("b"))
				}
				s.expect([]byte("b"))
			})
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

func TestClose(t *testing.T) {
	t.Run("flushes and terminates", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{delay: 50 * time.Millisecond}, Config{}, func(s *scene) {
			data := randomBytes(500_000, 3)
			s.write(data)
			s.conn.Close()
			if !bytes.Equal(s.peer.received(), data) || !s.conn.Terminated() || !s.peer.ended {
				t.Errorf("peer has %d bytes; terminated %v", len(s.peer.received()), s.conn.Terminated())
			}
		})
	})
	t.Run("is bounded when the agent is away", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
			s.peer.setAway(true)
			s.write([]byte("x"))
			started := time.Now()
			s.conn.Close()
			if took := time.Since(started); took > 4*time.Second || s.conn.Terminated() {
				t.Errorf("took %v, terminated %v", took, s.conn.Terminated())
			}
		})
	})
	t.Run("does not wait without a websocket", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
			s.net.set(func() { s.net.resume = errors.New("API down") })
			s.net.cut()
			time.Sleep(time.Second)
			started := time.Now()
			s.conn.Close()
			if took := time.Since(started); took > 0 {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("wakes readers and writers", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{WindowBytes: 16 << 10}, func(s *scene) {
			s.peer.setAway(true)
			var blocked sync.WaitGroup
			blocked.Go(func() {
				if _, err := s.conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("read: %v", err)
				}
			})
			blocked.Go(func() {
				if _, err := s.conn.Write(make([]byte, 1<<20)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("write: %v", err)
				}
			})
			synctest.Wait()
			s.conn.Close()
			blocked.Wait()
		})
	})
}

func TestDeadlines(t *testing.T) {
	inScene(t, peerOptions{echo: true}, faults{}, Config{WindowBytes: 16 << 10, NodeSilence: -1}, func(s *scene) {
		s.conn.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := s.conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		s.peer.setAway(true)
		s.conn.SetWriteDeadline(time.Now().Add(time.Second))
		data := randomBytes(100_000, 1)
		n, err := s.conn.Write(data)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(data) {
			t.Errorf("write: %d, %v", n, err)
		}
		s.peer.setAway(false)
		s.conn.SetDeadline(time.Time{})
		s.write(data[n:])
		s.expect(data)
	})
}

func TestReaderThatStops(t *testing.T) {
	cfg := Config{IncomingBytes: 64 << 10}
	inScene(t, peerOptions{}, faults{delay: time.Millisecond}, cfg, func(s *scene) {
		data := randomBytes(300_000, 1)
		s.peer.write(data)
		time.Sleep(2 * time.Minute) // neither silence nor a dead peer: it is we who do not read
		s.conn.mu.Lock()
		held := s.conn.inbox.n
		s.conn.mu.Unlock()
		if held < 64<<10 || held > 66<<10 {
			t.Errorf("%d bytes held", held)
		}
		if st := s.conn.Stats(); st.Resumes != 0 {
			t.Errorf("%d resumes", st.Resumes)
		}
		s.expect(data)
	})
}

// TestReaderBlockedByWriter is a reader that writes what it reads while the peer
// sends: the acknowledgements that its Write waits for come behind data for which
// there is no room.
func TestReaderBlockedByWriter(t *testing.T) {
	cfg := Config{IncomingBytes: 64 << 10, WindowBytes: 16 << 10}
	inScene(t, peerOptions{}, faults{delay: 50 * time.Millisecond}, cfg, func(s *scene) {
		data := randomBytes(1_000_000, 1)
		s.peer.write(data)
		time.Sleep(200 * time.Millisecond)
		if _, err := io.CopyN(s.conn, s.conn, int64(len(data))); err != nil {
			t.Fatal(err)
		}
		s.conn.Close()
		if !bytes.Equal(s.peer.received(), data) {
			t.Error("the peer has other bytes")
		}
	})
}

func TestGarbage(t *testing.T) {
	good := agentmsg.AppendMessage(nil, &agentmsg.Message{
		Type: agentmsg.OutputStreamData, CreatedMillis: 1, Sequence: 99, PayloadType: 1, Payload: []byte("forged"),
	})
	corrupt := bytes.Clone(good)
	corrupt[len(corrupt)-1]++
	unknown := agentmsg.AppendMessage(nil, &agentmsg.Message{Type: "dance", CreatedMillis: 1, Payload: []byte("x")})
	t.Run("some is ignored", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{}, func(s *scene) {
			for range 10 {
				for _, frame := range [][]byte{nil, {1, 2, 3}, corrupt, unknown} {
					s.net.inject(frame)
				}
				s.peer.sendStream(4711, []byte("a payload type of the future"))
			}
			s.write([]byte("x"))
			s.expect([]byte("x"))
		})
	})
	t.Run("nothing else ends the connection", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
			for range maxBad {
				s.net.inject(corrupt)
			}
			s.expectError(ErrProtocol)
		})
	})
}

func TestEndWithGap(t *testing.T) {
	inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
		s.net.inject(agentmsg.AppendMessage(nil, &agentmsg.Message{
			Type: agentmsg.OutputStreamData, CreatedMillis: 1, Sequence: 50, PayloadType: 1, Payload: []byte("late"),
		}))
		s.net.inject(channelClosed(""))
		s.expectError(io.ErrUnexpectedEOF)
	})
}
