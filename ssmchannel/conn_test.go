package ssmchannel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
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
					var doubled int
					s.net.set(func() { doubled = s.net.doubled })
					if tt.faults.duplicate > 0 && doubled == 0 || tt.cuts > 0 && st.Resumes == 0 {
						t.Errorf("the faults did not happen: %+v", st)
					}
					if tt.faults.duplicate >= 0.3 && st.Duplicates == 0 { // one in 20 of the few that come down may be none
						t.Error("duplicates do not show")
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
	for began := time.Now(); len(s.peer.received()) < len(up); time.Sleep(50 * ms) {
		if time.Since(began) > time.Hour || isClosed(s.conn.Done()) {
			s.Fatalf("%d of %d bytes after %v; %v", len(s.peer.received()), len(up), time.Since(began), s.conn.Err())
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
	for _, away := range []bool{false, true} {
		t.Run(fmt.Sprintf("calls End before it lets go of the websocket, agent away %v", away), func(t *testing.T) {
			var s *scene
			data := randomBytes(100_000, 3)
			calls := 0
			end := func() {
				calls++
				s.conn.mu.Lock()
				unacknowledged := !s.conn.out.empty()
				s.conn.mu.Unlock()
				closed := isClosed(s.conn.Done()) // by the peer, which doesn't always acknowledge the flag first
				if !away && (unacknowledged && !closed || !bytes.Equal(s.peer.received(), data)) {
					t.Errorf("not all has arrived: %v, %v, %d bytes", unacknowledged, closed, len(s.peer.received()))
				}
				if away && closed {
					t.Error("the websocket is closed already")
				}
			}
			inScene(t, peerOptions{}, faults{delay: 50 * time.Millisecond}, Config{End: end}, func(in *scene) {
				s = in
				s.peer.setAway(away)
				s.write(data)
				s.conn.Close()
				s.conn.Close()
				if calls != 1 || !isClosed(s.conn.Done()) {
					t.Errorf("%d calls", calls)
				}
			})
		})
	}
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

// Whichever loop ends first, what the service has said of the end is the end.
func TestChannelClosedComesBeforeTheReset(t *testing.T) {
	closed := func(reason string) []byte {
		payload, err := agentmsg.MarshalPayload(agentmsg.ChannelClosedPayload{
			MessageType: agentmsg.ChannelClosed, SchemaVersion: 1, Output: reason})
		if err != nil {
			t.Fatal(err)
		}
		return payload
	}
	c := newConn(Session{ID: "s-1"}, Config{}.populate(), nil)
	if err := c.final(syscall.ECONNRESET); err != nil {
		t.Errorf("a reset alone ends the connection: %v", err)
	}
	for reason, want := range map[string]error{"": io.EOF, "too long idle": &CloseError{Reason: "too long idle"}} {
		_ = c.receiveClosed(closed(reason))
		if err := c.final(syscall.ECONNRESET); err == nil || err.Error() != want.Error() {
			t.Errorf("%q: ended with %v, want %v", reason, err, want)
		}
	}
}
