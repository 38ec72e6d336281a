package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// newSuffix marks a file that isn't a record yet.
	newSuffix = ".new"
	// newLife is how long such a file is let be. Its writer needs a moment to lock it.
	newLife = time.Minute
	// malformedLife is how long a file stays that can't be read: long enough for somebody to look at it.
	malformedLife = 24 * time.Hour
	// foreignLife is how long a record of another host or container stays that nobody is known to hold: the place may
	// be gone for good, as a container's is. AWS itself forgets a session after 30 days.
	foreignLife = 30 * 24 * time.Hour
)

// Journal is a folder of records.
type Journal struct {
	dir  string
	here Place
}

// Open returns the user's journal. Nothing is read or made yet.
func Open() (*Journal, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) { // others are to be ignored (XDG Base Directory Specification)
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		base = filepath.Join(home, ".local", "state")
	}
	return At(filepath.Join(base, "ssm-ssh", "sessions")), nil
}

// At returns the journal in a folder.
func At(dir string) *Journal { return &Journal{dir: dir, here: here()} }

// Dir returns the folder.
func (j *Journal) Dir() string { return j.dir }

// State says what may be done with a record.
type State int

const (
	Live    State = iota // its owner lives
	Stale                // its owner has died: it may be claimed
	Foreign              // of another host or namespace: nobody here can tell
)

// String is the state as it is listed.
func (s State) String() string { return [...]string{"live", "stale", "elsewhere"}[s] }

// Item is a record and its state at the time of List.
type Item struct {
	Record
	State State
}

// List returns the records, oldest first; none, and no error, where there is no folder yet. It holds each
// one's lock for a moment: a Claim that comes at that very time fails.
func (j *Journal) List() ([]Item, error) {
	names, err := j.names(isTag)
	var items []Item
	for _, tag := range names {
		if item, err := j.look(tag); err == nil {
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return a.Began.Compare(b.Began) })
	return items, err
}

// Stale returns the records whose owner has died, oldest first. Of those that are held nothing is read, so that
// hundreds of living owners cost a new connection little. Where it meets what is no record it sweeps.
func (j *Journal) Stale(now time.Time) ([]Item, error) {
	names, err := j.names(func(name string) bool { return isTag(strings.TrimSuffix(name, newSuffix)) })
	var items []Item
	litter := false
	for _, name := range names {
		if strings.HasSuffix(name, newSuffix) {
			litter = true
			continue
		}
		if j.held(name) {
			continue
		}
		item, err := j.look(name)
		switch {
		case err == nil && item.State == Stale:
			items = append(items, item)
		case errors.Is(err, errMalformed), err == nil && item.State == Foreign && now.Sub(item.Began) > foreignLife:
			litter = true
		}
	}
	slices.SortFunc(items, func(a, b Item) int { return a.Began.Compare(b.Began) })
	if litter {
		err = errors.Join(err, j.Sweep(now))
	}
	return items, err
}

// held says whether a record's lock is held, by three calls of the system.
func (j *Journal) held(tag string) bool {
	fd, err := syscall.Open(j.path(tag), syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return false // whoever reads it will see why
	}
	defer syscall.Close(fd) //nolint:errcheck // nothing was written
	return errors.Is(flock(fd, syscall.LOCK_SH), ErrHeld)
}

// Empty says whether there is surely no record. It is what a start pays for when nothing is left behind.
func (j *Journal) Empty() bool {
	names, err := j.names(func(string) bool { return true })
	return err == nil && len(names) == 0
}

// names lists the files that a condition holds for.
func (j *Journal) names(wanted func(string) bool) ([]string, error) {
	if err := j.check(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if wanted(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// check refuses a folder that others may write to: a record there would have us call AWS for them.
func (j *Journal) check() error {
	info, err := os.Lstat(j.dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(st.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s must be a folder of this user with mode 0700", j.dir)
	}
	return nil
}

// look reads a record and tries its lock.
func (j *Journal) look(tag string) (Item, error) {
	f, err := os.Open(j.path(tag))
	if err != nil {
		return Item{}, err
	}
	defer f.Close()
	r, err := read(f, tag)
	if err != nil {
		return Item{}, err
	}
	return Item{r, j.stateOf(r, tryLock(f, syscall.LOCK_SH))}, nil
}

// stateOf reads a record's state out of what came of trying its lock. On a file system without locks the
// only proof of a death is that the system was started since.
func (j *Journal) stateOf(r Record, locked error) State {
	switch {
	case !r.sameSystem(j.here):
		return Foreign
	case locked == nil, !errors.Is(locked, ErrHeld) && r.Boot != j.here.Boot:
		return Stale
	}
	return Live
}

// read reads a file, which must be the record that its name says.
func read(f *os.File, tag string) (Record, error) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, recordLimit+1))
	if err != nil {
		return Record{}, err
	}
	r, err := parse(text)
	if err == nil && r.Tag != tag {
		err = errMalformed
	}
	return r, err
}

// Sweep removes what can become nothing any more: files of a Begin that was cut short, those that can't be
// read, and old ones of other places.
func (j *Journal) Sweep(now time.Time) error {
	names, err := j.names(func(name string) bool { return isTag(strings.TrimSuffix(name, newSuffix)) })
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, j.sweep(name, now))
	}
	return errors.Join(errs...)
}

func (j *Journal) sweep(name string, now time.Time) error {
	path := j.path(name)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return ignoreNotExist(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	life := newLife
	if !strings.HasSuffix(name, newSuffix) {
		r, err := read(f, name)
		switch {
		case err == nil && !r.sameSystem(j.here):
			life = foreignLife
		case errors.Is(err, errMalformed):
			life = malformedLife
		default:
			return err
		}
	}
	if now.Sub(info.ModTime()) < life || tryLock(f, syscall.LOCK_EX) != nil {
		return nil
	}
	return ignoreNotExist(os.Remove(path))
}

func (j *Journal) path(name string) string { return filepath.Join(j.dir, name) }

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ErrHeld says that a record's owner, or a reaper, holds it.
var ErrHeld = errors.New("the record is held by a living process")

// tryLock takes a lock that goes when the file is closed, and doesn't wait for it.
func tryLock(f *os.File, how int) error { return flock(int(f.Fd()), how) }

func flock(fd, how int) error {
	for {
		switch err := syscall.Flock(fd, how|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return ErrHeld
		default:
			return os.NewSyscallError("flock", err)
		}
	}
}
