package governor

import (
	"bytes"
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
	fileSize     = 512     // bytes
	fileAtMost   = 4 << 10 // of a file that is none of ours
	openTries    = 4
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
	var rest time.Duration
	if g.update(func(s *schedule, now time.Time) { rest = s.refused(now).Sub(now) }) != nil {
		rest = settling + rand.N(settling)
	}
	again := g.now().Add(rest) // with the monotonic clock, which nobody puts back
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
	f, err := g.open()
	if err != nil {
		return err
	}
	defer f.Close()
	now := g.now()
	s := load(f, now)
	change(&s, now)
	s.Stamp = now
	text, err := json.Marshal(&s)
	if err != nil {
		return err
	}
	// Of one length and in one write: whoever is killed here leaves the old schedule or the new one.
	_, err = f.WriteAt(append(text, bytes.Repeat([]byte{' '}, max(0, fileSize-len(text)))...), 0)
	return err
}

// open returns the file, locked. A process that was stopped while it had the lock must not stop the others: its
// file is taken away, and another begun.
func (g *Governor) open() (*os.File, error) {
	for try := 1; ; try++ {
		f, err := os.OpenFile(g.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		err = lock(f)
		switch named := isNamed(f, g.path); {
		case err == nil && named:
			return f, nil
		case errors.Is(err, errBusy) && named:
			os.Remove(g.path) //nolint:errcheck // somebody else's, then, is the next to be tried
		}
		f.Close()
		if err != nil && !errors.Is(err, errBusy) {
			return nil, err
		}
		if try == openTries {
			return nil, errBusy
		}
	}
}

// isNamed says whether a file is the one that a path leads to.
func isNamed(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(ours, named)
}

// lock waits for the file's lock, which goes with the descriptor. The error is errBusy when somebody has had it
// for too long: as long as the file changes, it goes from hand to hand.
func lock(f *os.File) error {
	var changed time.Time
	for limit := time.Now(); ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if at := info.ModTime(); !at.Equal(changed) {
			changed, limit = at, time.Now().Add(lockPatience)
		}
		if time.Now().After(limit) {
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
	if len(text) > fileSize { // not ours
		f.Truncate(0) //nolint:errcheck // or it stays senseless, and each process slows down by itself
	}
	return parse(text, now)
}

// parse is load for what the file holds.
func parse(text []byte, now time.Time) schedule {
	var s schedule
	if json.Unmarshal(text, &s) != nil {
		return begin(now)
	}
	s.follow(now)
	if !s.valid(now) {
		return begin(now)
	}
	if !s.Refused.IsZero() && now.Sub(s.Refused) > memory {
		tail := s.Tail
		s = begin(now)
		s.Next, s.Tail = tail, tail
	}
	return s
}
