package ssmchannel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

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
			if took := time.Since(started); took < time.Minute || took > 61*time.Second {
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

// TestBackoff: the first attempt is made at once, then they double from 50 ms to 5 s, with jitter over the
// upper half.
func TestBackoff(t *testing.T) {
	for n, want := range []time.Duration{0, 50 * ms, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, maxPause, maxPause} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := backoff(n)
			seen[d] = true
			if d < want/2 || d > want {
				t.Errorf("pause %d: %v, want %v to %v", n, d, want/2, want)
			}
		}
		if n > 0 && len(seen) < 50 {
			t.Errorf("pause %d: %d values in 100", n, len(seen))
		}
	}
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
				for s.conn.Stats().LostSince.IsZero() && s.conn.Stats().Resumes == 0 && time.Since(started) < time.Hour {
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
