package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// beginTries bounds how often Begin starts over because a Sweep took its file before it was locked.
const beginTries = 3

// ErrForeign says that a record is of another host or namespace.
var ErrForeign = errors.New("the record is of another host or container")

// Entry is a record that this process holds. One of Remove and Release must be called. An Entry is not
// for use by two goroutines at once. The methods of a nil Entry do nothing: it stands for a record that
// could not be written.
type Entry struct {
	record Record
	path   string
	file   *os.File // locked
}

// Begin writes the intent to start a session and holds it. The place, the process and the time are filled
// in. When Begin returns, the record is on disk.
func (j *Journal) Begin(r Record) (*Entry, error) {
	if err := j.makeDir(); err != nil {
		return nil, err
	}
	r.Place, r.PID, r.Began = j.here, os.Getpid(), time.Now().UTC()
	if !r.valid() {
		return nil, fmt.Errorf("record %+v: %w", r, errMalformed)
	}
	for try := 1; ; try++ {
		e, err := j.write(r)
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrHeld) || try == beginTries {
			return e, err
		}
	}
}

// makeDir makes the folder, and those above it that are missing, for this user alone.
func (j *Journal) makeDir() error {
	err := j.check()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	return j.check()
}

// write makes a record's file.
func (j *Journal) write(r Record) (*Entry, error) {
	e := &Entry{record: r, path: j.path(r.Tag)}
	temporary := e.path + newSuffix
	testOnlyStep("begin")
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	e.file = f
	testOnlyStep("made")
	err = tryLock(f, syscall.LOCK_EX)
	if err != nil && !errors.Is(err, ErrHeld) {
		err = nil // no locks on this file system; see stateOf
	}
	testOnlyStep("locked")
	if err == nil {
		err = e.append(line(r))
	}
	testOnlyStep("written")
	if err == nil {
		err = os.Rename(temporary, e.path)
	}
	testOnlyStep("named")
	if err == nil {
		err = syncDir(j.dir)
	}
	if err != nil {
		os.Remove(temporary) //nolint:errcheck // may be gone, which is the error then
		e.Remove()           //nolint:errcheck // as above
		return nil, err
	}
	return e, nil
}

// testOnlyStep is told how far a record has come; tests end the process there.
var testOnlyStep = func(step string) {}

// append writes to the end of the file and waits until it is on disk.
func (e *Entry) append(text []byte) error {
	if _, err := e.file.Write(text); err != nil {
		return err
	}
	return e.file.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Record returns what is written.
func (e *Entry) Record() Record {
	if e == nil {
		return Record{}
	}
	return e.record
}

// Started adds the answer of StartSession.
func (e *Entry) Started(session, owner string) error {
	return e.note(progress{Session: session, Owner: owner})
}

// NoteStale adds that the session's owner was found dead; only the first time counts.
func (e *Entry) NoteStale(now time.Time) error {
	if e == nil || !e.record.Stale.IsZero() {
		return nil
	}
	return e.note(progress{Stale: now.UTC()})
}

// NoteFailed adds that the session could not be ended.
func (e *Entry) NoteFailed(now time.Time) error { return e.note(progress{Failed: now.UTC()}) }

// note appends a line. It begins with a line end of its own, since a crash may have left a part of
// another one before it.
func (e *Entry) note(p progress) error {
	if e == nil {
		return nil
	}
	next := e.record.progress
	for _, field := range []struct{ to, from *string }{{&next.Session, &p.Session}, {&next.Owner, &p.Owner}} {
		if *field.from != "" {
			*field.to = *field.from
		}
	}
	for _, field := range []struct{ to, from *time.Time }{{&next.Stale, &p.Stale}, {&next.Failed, &p.Failed}} {
		if !field.from.IsZero() {
			*field.to = *field.from
		}
	}
	if !next.valid() {
		return errMalformed
	}
	testOnlyStep("answered")
	if err := e.append(append([]byte{'\n'}, line(p)...)); err != nil {
		return err
	}
	e.record.progress = next
	testOnlyStep("noted")
	return nil
}

// Remove takes the record away: its session has ended, or was never started.
func (e *Entry) Remove() error {
	if e == nil {
		return nil
	}
	testOnlyStep("ended")
	err := os.Remove(e.path) // while the lock is held, so that nobody claims what is over
	testOnlyStep("removed")
	return errors.Join(err, e.file.Close())
}

// Release leaves the record to whoever claims it.
func (e *Entry) Release() error {
	if e == nil {
		return nil
	}
	return e.file.Close()
}

// Claim takes over a stale record. The error is ErrHeld when somebody else holds it, ErrForeign when
// it can't be known whether somebody does, and wraps fs.ErrNotExist when it has gone.
func (j *Journal) Claim(tag string) (*Entry, error) {
	if !isTag(tag) {
		return nil, errMalformed
	}
	f, err := os.OpenFile(j.path(tag), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	e := &Entry{path: j.path(tag), file: f}
	if err := j.claim(e); err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

func (j *Journal) claim(e *Entry) error {
	locked := tryLock(e.file, syscall.LOCK_EX)
	if errors.Is(locked, ErrHeld) {
		return ErrHeld
	}
	// The one that held it a moment ago may have removed it, or written more.
	if err := e.stillNamed(); err != nil {
		return err
	}
	var err error
	if e.record, err = read(e.file, filepath.Base(e.path)); err != nil {
		return err
	}
	switch j.stateOf(e.record, locked) {
	case Foreign:
		return ErrForeign
	case Live:
		return ErrHeld
	}
	return nil
}

// stillNamed says whether the file is the one that its name leads to.
func (e *Entry) stillNamed() error {
	ours, err := e.file.Stat()
	if err != nil {
		return err
	}
	named, err := os.Lstat(e.path)
	if err != nil {
		return err
	}
	if !os.SameFile(ours, named) {
		return fs.ErrNotExist
	}
	return nil
}

// Forget removes a record that can't be claimed, when its session is known to have ended all the same.
func (j *Journal) Forget(tag string) error {
	if !isTag(tag) {
		return errMalformed
	}
	return ignoreNotExist(os.Remove(j.path(tag)))
}
