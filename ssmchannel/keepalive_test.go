package ssmchannel

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// wallClock is a wall clock that can be moved, as a computer's sleep moves it. It counts who looks.
type wallClock struct{ ahead, looks atomic.Int64 }

func (w *wallClock) config(cfg Config) Config {
	cfg.wall = func(now time.Time) time.Time {
		w.looks.Add(1)
		return now.Round(0).Add(time.Duration(w.ahead.Load()))
	}
	return cfg
}

func (w *wallClock) jump(d time.Duration) { w.ahead.Add(int64(d)) }

// awaitResumes returns when the websocket has been replaced so often, and after what time.
func (s *scene) awaitResumes(n uint64) time.Duration {
	started := time.Now()
	for s.conn.Stats().Resumes < n {
		if time.Since(started) > time.Hour {
			s.Fatalf("%d resumes after an hour", s.conn.Stats().Resumes)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(started)
}

func TestClockJump(t *testing.T) {
	tests := []struct {
		name   string
		jump   time.Duration
		write  bool
		within time.Duration // to the new websocket; 0: there is none
	}{
		{"idle, by the next ping", 8 * time.Hour, false, defaultPingInterval + 10*ms},
		{"at once with the first byte to be sent", 8 * time.Hour, true, 10 * ms},
		{"a short sleep", 20 * time.Second, true, 10 * ms},
		{"the time is corrected", 5 * time.Second, true, 0},
		{"the time is set back", -8 * time.Hour, true, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var wall wallClock
			inScene(t, peerOptions{echo: true}, faults{}, wall.config(Config{}), func(s *scene) {
				s.write([]byte("a"))
				s.expect([]byte("a"))
				time.Sleep(time.Minute)
				wall.jump(tt.jump)
				if tt.write {
					s.write([]byte("b"))
				}
				if tt.within == 0 {
					time.Sleep(2 * time.Minute)
					if n := s.conn.Stats().Resumes; n != 0 {
						t.Errorf("%d resumes", n)
					}
				} else if took := s.awaitResumes(1); took > tt.within {
					t.Errorf("a new websocket after %v, want %v at most", took, tt.within)
				}
				if !tt.write {
					s.write([]byte("b"))
				}
				s.expect([]byte("b"))
				if time.Sleep(time.Hour); s.conn.Stats().Resumes > 1 {
					t.Errorf("%d resumes for one sleep", s.conn.Stats().Resumes)
				}
			})
		})
	}
}

// TestSleepWhileTheLinkIsLost has the computer sleep while the way is being sought: the time that it slept
// does not count against ResumeFor, and is no reason to give up the websocket that is found.
func TestSleepWhileTheLinkIsLost(t *testing.T) {
	var wall wallClock
	inScene(t, peerOptions{echo: true}, faults{}, wall.config(Config{ResumeFor: time.Minute}), func(s *scene) {
		s.net.set(func() { s.net.resume = errors.New("API down") })
		s.net.cut()
		time.Sleep(30 * time.Second)
		wall.jump(8 * time.Hour)
		s.net.set(func() { s.net.resume = nil })
		s.awaitResumes(1)
		s.write([]byte("x"))
		s.expect([]byte("x"))
		if n := s.conn.Stats().Resumes; n != 1 {
			t.Errorf("%d resumes", n)
		}
	})
}

// TestIdleWakesForPingsAlone: the loops look at the clock once each time they wake up.
func TestIdleWakesForPingsAlone(t *testing.T) {
	var wall wallClock
	inScene(t, peerOptions{echo: true}, faults{}, wall.config(Config{}), func(s *scene) {
		s.write([]byte("x"))
		s.expect([]byte("x"))
		time.Sleep(time.Minute + time.Second) // between two pings
		before := wall.looks.Load()
		time.Sleep(time.Hour)
		if n := wall.looks.Load() - before; n != int64(time.Hour/defaultPingInterval) {
			t.Errorf("%d wake-ups in an hour, want one per ping", n)
		}
	})
}

// TestClogged is a peer that does not read any more while it still sends: the send loop is stuck in its
// write, and somebody else has to judge.
func TestClogged(t *testing.T) {
	clog := func(s *scene) {
		s.write([]byte("x"))
		s.expect([]byte("x"))
		s.net.set(func() {
			for _, l := range s.net.links {
				l.clogged.Store(true)
			}
		})
	}
	t.Run("the node repeats itself", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{}, func(s *scene) {
			clog(s)
			again := agentmsg.AppendMessage(nil, &agentmsg.Message{
				Type: agentmsg.OutputStreamData, CreatedMillis: 1, PayloadType: agentmsg.Output, Payload: []byte("x"),
			})
			var repeats sync.WaitGroup
			repeats.Go(func() {
				for !isClosed(s.conn.Done()) {
					s.net.inject(again)
					time.Sleep(100 * ms)
				}
			})
			started := time.Now()
			s.write([]byte("y"))
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took > defaultNodeSilence+defaultPingInterval+defaultPingTimeout+10*ms {
				t.Errorf("noticed after %v", took)
			}
			repeats.Wait()
		})
	})
	t.Run("the node sends on", func(t *testing.T) {
		inScene(t, peerOptions{echo: true, pace: 100 * ms}, faults{}, Config{}, func(s *scene) {
			clog(s)
			s.write([]byte("y"))
			data := randomBytes(1<<20, 1)
			s.peer.write(data)
			go io.CopyN(io.Discard, s.conn, int64(len(data)))
			if took := s.awaitResumes(1); took > 2*defaultPingInterval+defaultPingTimeout {
				t.Errorf("replaced after %v", took)
			}
			time.Sleep(time.Second)
			if got := s.peer.received(); string(got) != "xy" {
				t.Errorf("the peer has %q", got)
			}
			synctest.Wait()
		})
	})
	t.Run("a dead one is replaced", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{}, func(s *scene) {
			clog(s)
			s.net.set(func() {
				s.net.tap = func(bool, []byte) bool { return false }
				for _, l := range s.net.links {
					l.deaf.Store(true)
				}
			})
			s.write([]byte("y"))
			if took := s.awaitResumes(1); took > defaultPingInterval+defaultPingTimeout+10*ms {
				t.Errorf("replaced after %v", took)
			}
			s.net.set(func() { s.net.tap = nil })
			s.expect([]byte("y"))
		})
	})
}

// bucket is a link that counts what a flush would carry.
type bucket struct{ memLink }

func (b *bucket) Write(message []byte) error {
	b.queued = append(b.queued, nil)
	b.lastRead.Add(int64(len(message)))
	return nil
}

// TestFlushIsBounded: acknowledgements that have piled up do not hold up what is written, nor overflow the
// link.
func TestFlushIsBounded(t *testing.T) {
	c := newConn(Session{ID: "s-1"}, Config{}.populate(), nil)
	defer c.cancel(errors.New("over"))
	c.mu.Lock()
	for n := range int64(maxPendingAcks + 100) {
		c.queueAckLocked(&agentmsg.Message{Sequence: n})
	}
	c.mu.Unlock()
	if _, err := c.enqueue(c.newFrame(agentmsg.Output, []byte("a key"))); err != nil {
		t.Fatal(err)
	}
	var b bucket
	messages := 0
	now := time.Now() // all of it happens at once: nothing is due again
	for flushes := 1; ; flushes++ {
		_, more, err := c.fill(&b, now)
		if err != nil {
			t.Fatal(err)
		}
		if n := b.lastRead.Swap(0); n > flushBytes+2*1024 {
			t.Fatalf("%d bytes in a flush", n)
		}
		if flushes == 1 && c.out.unsent != 1 {
			t.Error("what was written waits for all acknowledgements")
		}
		messages += len(b.queued)
		b.queued = nil
		if !more {
			break
		}
	}
	if want := maxPendingAcks + 1; messages != want {
		t.Errorf("%d messages, want %d", messages, want)
	}
}
