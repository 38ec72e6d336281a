package governor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"
)

const (
	fileAtMost   = 4 << 10 // bytes
	lockPatience = time.Second
	lockPause    = 2 * time.Millisecond // between tries, with as much jitter
	// lookAgain is how often somebody who waits looks whether turns have come nearer.
	lookAgain = time.Second
	// sayEvery is how often those who wait say so.
	sayEvery = 5 * time.Second
)

var errBusy = errors.New("the governor's file is locked for too long")

// Governor gives turns. It holds nothing open between calls and is for any number of goroutines.
type Governor struct {
	path string
	now  func() time.Time
}

// At returns the governor whose state is the file at path, in a folder that exists.
func At(path string) *Governor { return &Governor{path: path, now: time.Now} }

// Turn waits for a turn. waiting is told every five seconds how long it may still take. The error is
// that of ctx.
func (g *Governor) Turn(ctx context.Context, waiting func(time.Duration)) error {
	var turn int64
	err := g.update(func(s *schedule, now time.Time) { turn = s.take(now) })
	if err != nil {
		return context.Cause(ctx) // without a schedule there is none to keep
	}
	return g.await(ctx, waiting, func() (due time.Time) {
		if g.update(func(s *schedule, _ time.Time) { due = s.due(turn) }) != nil {
			return time.Time{}
		}
		return due
	})
}

// Granted notes that a call was served.
func (g *Governor) Granted() {
	_ = g.update(func(s *schedule, now time.Time) { s.granted(now) }) // the rate stays as it is
}

// Refused notes that a call came too fast, and waits until it may be made again. The error is that of
// ctx.
func (g *Governor) Refused(ctx context.Context, waiting func(time.Duration)) error {
	var again time.Time
	if g.update(func(s *schedule, now time.Time) { again = s.refused(now) }) != nil {
		again = g.now().Add(settling + rand.N(settling))
	}
	return g.await(ctx, waiting, func() time.Time { return again })
}

// await waits until what due returns has come.
func (g *Governor) await(ctx context.Context, waiting func(time.Duration), due func() time.Time) error {
	say := g.now().Add(sayEvery)
	for {
		now := g.now()
		rest := due().Sub(now)
		if rest <= 0 {
			return context.Cause(ctx)
		}
		if !now.Before(say) {
			waiting(rest)
			say = now.Add(sayEvery)
		}
		select {
		case <-time.After(min(rest, lookAgain)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// update changes the schedule in the file.
func (g *Governor) update(change func(s *schedule, now time.Time)) error {
	f, err := os.OpenFile(g.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lock(f); err != nil {
		return err
	}
	now := g.now()
	s := load(f, now)
	change(&s, now)
	text, err := json.Marshal(&s)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	return err
}

// lock waits for the file's lock, which goes with the descriptor. A process that was stopped while it
// had it must not stop the others.
func lock(f *os.File) error {
	for limit := time.Now().Add(lockPatience); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return err
		case time.Now().After(limit):
			return errBusy
		}
		time.Sleep(lockPause + rand.N(lockPause)) // the holder needs some microseconds
	}
}

// load reads the schedule, or begins one.
func load(f *os.File, now time.Time) schedule {
	text, err := io.ReadAll(io.LimitReader(f, fileAtMost))
	if err != nil {
		return begin(now)
	}
	return parse(text, now)
}

// parse is load for what the file holds.
func parse(text []byte, now time.Time) schedule {
	var s schedule
	if json.Unmarshal(text, &s) != nil || !s.valid(now) {
		return begin(now)
	}
	if !s.Refused.IsZero() && now.Sub(s.Refused) > memory {
		tail := s.Tail
		s = begin(now)
		s.Next, s.Tail = tail, tail
	}
	return s
}
