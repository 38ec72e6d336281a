package governor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bucket is a service that serves rate calls a second, burst of them at once.
type bucket struct {
	rate, burst float64

	mu     sync.Mutex
	tokens float64
	last   time.Time
	calls  int
}

func newBucket(rate, burst float64) *bucket {
	return &bucket{rate: rate, burst: burst, tokens: burst, last: time.Now()}
}

func (b *bucket) call() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.tokens = min(b.burst, b.tokens+b.rate*now.Sub(b.last).Seconds())
	b.last = now
	b.calls++
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// TestManyAtOnce has many callers come at once to a service that allows few calls a second: all are
// served, in about the least time and in about the order in which they came.
func TestManyAtOnce(t *testing.T) {
	tests := []struct {
		name        string
		rate, burst float64
		callers     int
	}{
		{"three a second", 3, 3, 200},
		{"one a second", 1, 2, 60},
		{"ten a second", 10, 10, 200},
		{"one in five seconds", 0.2, 1, 20},
		{"little burst", 5, 2, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pace")
			synctest.Test(t, func(t *testing.T) {
				service := newBucket(tt.rate, tt.burst)
				began := time.Now()
				served := make([]time.Duration, tt.callers)
				var wg sync.WaitGroup
				for i := range tt.callers {
					wg.Go(func() {
						if err := callThrough(At(path), service); err != nil {
							t.Error(err)
						}
						served[i] = time.Since(began)
					})
					time.Sleep(time.Millisecond)
				}
				wg.Wait()
				least := time.Duration((float64(tt.callers) - tt.burst) / tt.rate * float64(time.Second))
				took := time.Since(began)
				t.Logf("%d callers, %d calls, %v, %.2f of the least", tt.callers, service.calls, took, took.Seconds()/least.Seconds())
				if took > least*13/10 {
					t.Errorf("took %v, want at most 1.3 of %v", took, least)
				}
				for i := range tt.callers / 2 {
					if later := i + tt.callers/2; served[i] > served[later] {
						t.Errorf("caller %d was served after caller %d", i, later)
					}
				}
			})
		})
	}
}

func callThrough(g *Governor, service *bucket) error {
	ignore := func(time.Duration) {}
	if err := g.Turn(context.Background(), ignore); err != nil {
		return err
	}
	for {
		time.Sleep(50 * time.Millisecond) // the call
		if service.call() {
			g.Granted()
			return nil
		}
		if err := g.Refused(context.Background(), ignore); err != nil {
			return err
		}
	}
}

// TestFewAtOnce: some callers on a service without limits don't wait at all.
func TestFewAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pace")
	synctest.Test(t, func(t *testing.T) {
		for range 3 {
			began := time.Now()
			for range firstBurst {
				if err := At(path).Turn(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(began); took != 0 {
				t.Errorf("took %v", took)
			}
			time.Sleep(time.Hour)
		}
	})
}

// TestUnlimited: hundreds of callers on a service without limits wait for seconds, not for a minute.
func TestUnlimited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pace")
	synctest.Test(t, func(t *testing.T) {
		service := newBucket(1e9, 1e9)
		began := time.Now()
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				if err := callThrough(At(path), service); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestWaitingIsSaidAndEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pace")
	synctest.Test(t, func(t *testing.T) {
		g := At(path)
		if err := g.update(func(s *schedule, now time.Time) { s.Due, s.Interval = now.Add(time.Hour), time.Second }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 21*time.Second, errors.New("no patience"))
		defer cancel()
		said := 0
		err := g.Turn(ctx, func(d time.Duration) {
			said++
			if d < 59*time.Minute || d > time.Hour {
				t.Errorf("said that it takes %v", d)
			}
		})
		if said != 4 || err == nil || err.Error() != "no patience" {
			t.Errorf("said %d times, %v", said, err)
		}
	})
}

// TestWithoutFile: where nothing can be written there are turns all the same, and refused calls wait.
func TestWithoutFile(t *testing.T) {
	g := At(filepath.Join(t.TempDir(), "missing", "pace"))
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := g.Turn(t.Context(), nil); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		g.Granted()
		if err := g.Refused(t.Context(), nil); err != nil || time.Since(began) < settling {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestLinkIsNotFollowed: in a folder that others can write, a link must lead nowhere.
func TestLinkIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "pace")
	if err := os.Symlink(filepath.Join(dir, "other"), path); err != nil {
		t.Fatal(err)
	}
	if At(path).update(func(*schedule, time.Time) {}) == nil {
		t.Error("a link was followed")
	}
}

// TestStoppedHolder: a process that was stopped with the lock in its hands holds up nobody for long, and nobody
// twice.
func TestStoppedHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pace")
	g := At(path)
	if err := g.Turn(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	stopped, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = lock(stopped)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer stopped.Close()
	var wg sync.WaitGroup
	began := time.Now()
	for range 5 {
		wg.Go(func() {
			if err := g.update(func(*schedule, time.Time) {}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took < lockPatience {
		t.Errorf("the lock was passed over after %v", took)
	}
	began = time.Now()
	if err := g.update(func(*schedule, time.Time) {}); err != nil || time.Since(began) > lockPatience {
		t.Errorf("once more: %v after %v", err, time.Since(began))
	}
}

// TestClockPutBack: who waits, waits as long as before.
func TestClockPutBack(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, back := range []time.Duration{time.Millisecond, time.Hour, 23 * time.Hour, 1000 * time.Hour} {
		g := &Governor{path: filepath.Join(t.TempDir(), "pace"), now: func() time.Time { return now }}
		var turn int64
		take := func(s *schedule, now time.Time) { turn = s.take(now) }
		for range firstBurst + 20 {
			if err := g.update(take); err != nil {
				t.Fatal(err)
			}
		}
		g.now = func() time.Time { return now.Add(-back) }
		var rest time.Duration
		if err := g.update(func(s *schedule, now time.Time) { rest = s.due(turn).Sub(now) }); err != nil || rest > 20*firstInterval {
			t.Errorf("%v back: %v to wait, %v", back, rest, err)
		}
	}
}

// TestFileOfSomebodyElse: whatever is in the file, there are turns, and the next finds a schedule in it.
func TestFileOfSomebodyElse(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "garbage": "\x00\xff", "half a schedule": `{"next":1,"du`, "much": strings.Repeat("x", 2*fileAtMost),
		"a schedule and more": `{"next":1,"due":"2026-11-21T12:00:00Z","interval":100000000,"tail":1,"refused":"0001-01-01T00:00:00Z"}}` + strings.Repeat(" ", fileSize),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pace")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			g := At(path)
			for want := range int64(3) {
				var turn int64
				if err := g.update(func(s *schedule, now time.Time) { turn = s.take(now) }); err != nil || turn != want {
					t.Errorf("turn %d, %v, want %d", turn, err, want)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Add([]byte(`{"next":1,"due":"2026-11-21T12:00:00Z","interval":100000000,"tail":3,"refused":"2026-11-21T11:59:00Z"}`))
	f.Add([]byte(`{"next":-1}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, text []byte) {
		s := parse(text, now)
		if !s.valid(now) {
			t.Fatalf("%s: %+v", text, s)
		}
		turn := s.take(now)
		s.granted(now)
		s.refused(now)
		if d := s.due(turn).Sub(now); d > 2*horizon {
			t.Errorf("%s: due in %v", text, d)
		}
	})
}
