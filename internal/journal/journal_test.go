package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// begun makes a journal with one record, held by the entry that is returned.
func begun(t *testing.T) (*Journal, *Entry) {
	t.Helper()
	j := At(filepath.Join(t.TempDir(), "a", "sessions"))
	e, err := j.Begin(Record{Tag: NewTag(), Target: "mi-1", Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Release() })
	return j, e
}

// only returns the journal's one item.
func only(t *testing.T, j *Journal) Item {
	t.Helper()
	items, err := j.List()
	if err != nil || len(items) != 1 {
		t.Fatalf("items %+v, %v; want one", items, err)
	}
	return items[0]
}

// edit changes a record's file as another hand would.
func edit(t *testing.T, j *Journal, e *Entry, change func(*Record)) {
	t.Helper()
	r := e.Record()
	change(&r)
	if err := os.WriteFile(j.path(e.record.Tag), line(r), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLifeOfARecord(t *testing.T) {
	j, e := begun(t)
	if it := only(t, j); it.State != Live || it.Target != "mi-1" || it.PID != os.Getpid() || it.Session != "" {
		t.Errorf("intent: %+v", it)
	}
	if _, err := j.Claim(e.Record().Tag); !errors.Is(err, ErrHeld) {
		t.Errorf("claiming a living one: %v", err)
	}
	if err := e.Started("me-0123", "me"); err != nil {
		t.Fatal(err)
	}
	if it := only(t, j); it.State != Live || it.Session != "me-0123" || it.Owner != "me" {
		t.Errorf("started: %+v", it)
	}
	if err := e.Release(); err != nil {
		t.Fatal(err)
	}
	if it := only(t, j); it.State != Stale {
		t.Errorf("released: %+v", it)
	}
	claimed, err := j.Claim(e.Record().Tag)
	if err != nil || claimed.Record().Session != "me-0123" {
		t.Fatalf("claimed %+v, %v", claimed.Record(), err)
	}
	now := time.Now()
	if err := errors.Join(claimed.NoteStale(now), claimed.NoteStale(now.Add(time.Hour)), claimed.NoteFailed(now)); err != nil {
		t.Fatal(err)
	}
	if it := only(t, j); it.State != Live || !it.Stale.Equal(now) || !it.Failed.Equal(now) {
		t.Errorf("claimed: %+v", it)
	}
	if err := claimed.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Claim(e.Record().Tag); !errors.Is(err, fs.ErrNotExist) || !j.Empty() {
		t.Errorf("after the end: %v, empty %v", err, j.Empty())
	}
}

func TestNothingThere(t *testing.T) {
	j := At(filepath.Join(t.TempDir(), "nowhere"))
	items, err := j.List()
	if err != nil || items != nil || !j.Empty() || j.Sweep(time.Now()) != nil {
		t.Errorf("items %v, %v", items, err)
	}
	var e *Entry
	if err := errors.Join(e.Started("a", "b"), e.NoteStale(time.Now()), e.NoteFailed(time.Now()), e.Remove(), e.Release()); err != nil {
		t.Error(err)
	}
}

func TestFolder(t *testing.T) {
	j, e := begun(t)
	for _, name := range []string{j.Dir(), filepath.Dir(j.Dir())} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Stat(j.path(e.Record().Tag)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("record: %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(j.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Begin(Record{Tag: NewTag(), Target: "mi-1"}); err == nil {
		t.Error("a folder that others may read was taken")
	}
	if _, err := j.List(); err == nil || j.Empty() {
		t.Error("a folder that others may read was read")
	}
	t.Setenv("XDG_STATE_HOME", "relative")
	t.Setenv("HOME", "/home/me")
	if j, err := Open(); err != nil || j.Dir() != "/home/me/.local/state/ssm-ssh/sessions" {
		t.Errorf("%v, %v", j, err)
	}
	t.Setenv("XDG_STATE_HOME", "/state")
	if j, err := Open(); err != nil || j.Dir() != "/state/ssm-ssh/sessions" {
		t.Errorf("%v, %v", j, err)
	}
}

// Of another host or namespace nothing is known: its entries stay as they are, locked or not.
func TestForeignRecords(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"host":      func(r *Record) { r.Host = "another" },
		"namespace": func(r *Record) { r.Namespace = "pid:[1]" },
	} {
		t.Run(name, func(t *testing.T) {
			j, e := begun(t)
			edit(t, j, e, change)
			if err := j.Sweep(time.Now().Add(2 * foreignLife)); err != nil {
				t.Error(err)
			}
			only(t, j) // held, so it lives
			e.Release()
			if it := only(t, j); it.State != Foreign {
				t.Errorf("state %v", it.State)
			}
			if _, err := j.Claim(e.Record().Tag); !errors.Is(err, ErrForeign) {
				t.Errorf("claim: %v", err)
			}
			if err := j.Sweep(time.Now().Add(foreignLife / 2)); err != nil {
				t.Error(err)
			}
			only(t, j)
			if err := j.Sweep(time.Now().Add(2 * foreignLife)); err != nil || !j.Empty() {
				t.Errorf("it stays for ever; %v", err)
			}
		})
	}
}

func TestRecordOfAnEarlierBootIsStale(t *testing.T) {
	j, e := begun(t)
	edit(t, j, e, func(r *Record) { r.Boot = "another" })
	if it := only(t, j); it.State != Live {
		t.Errorf("a lock that is held tells more than the boot: %v", it.State)
	}
	e.Release()
	if it := only(t, j); it.State != Stale {
		t.Errorf("state %v", it.State)
	}
}

// Without locks only another boot proves a death.
func TestStateWithoutLocks(t *testing.T) {
	j := &Journal{here: Place{Host: "h", Namespace: "n", Boot: "b"}}
	noLocks := errors.New("function not implemented")
	for _, tt := range []struct {
		name   string
		place  Place
		locked error
		want   State
	}{
		{"free", Place{"h", "n", "b"}, nil, Stale},
		{"held", Place{"h", "n", "b"}, ErrHeld, Live},
		{"no locks", Place{"h", "n", "b"}, noLocks, Live},
		{"no locks, another boot", Place{"h", "n", "c"}, noLocks, Stale},
		{"held, another boot", Place{"h", "n", "c"}, ErrHeld, Live},
		{"another host", Place{"i", "n", "c"}, nil, Foreign},
		{"another namespace", Place{"h", "m", "b"}, nil, Foreign},
	} {
		if got := j.stateOf(Record{Place: tt.place}, tt.locked); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A power cut may leave a part of a line, or zeros in its place.
func TestTornLines(t *testing.T) {
	for _, torn := range []string{"\n{\"session\":\"me-01", "\n\x00\x00\x00\x00\n", "\n{\"session\":\"a\x1b[31m\"}\n", "\n"} {
		j, e := begun(t)
		f, err := os.OpenFile(e.path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(torn)
		f.Close()
		e.Release()
		if it := only(t, j); it.Session != "" || it.State != Stale {
			t.Errorf("%q: %+v", torn, it)
		}
		claimed, err := j.Claim(e.Record().Tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := claimed.Started("me-0123", "me"); err != nil {
			t.Fatal(err)
		}
		if it := only(t, j); it.Session != "me-0123" {
			t.Errorf("%q: what was noted after it is lost: %+v", torn, it)
		}
		claimed.Release()
	}
}

func TestSweep(t *testing.T) {
	j, e := begun(t)
	files := map[string]string{
		NewTag() + newSuffix: "", // of a Begin that was cut short
		NewTag():             "nonsense\n",
		"README":             "not ours",
	}
	for name, text := range files {
		if err := os.WriteFile(j.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	held := NewTag() + newSuffix
	f, err := os.Create(j.path(held))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tryLock(f, 2); err != nil { // LOCK_EX
		t.Fatal(err)
	}
	left := func(now time.Time) (names []string) {
		if err := j.Sweep(now); err != nil {
			t.Error(err)
		}
		names, err := j.names(func(name string) bool { return name != held && name != e.Record().Tag })
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if names := left(time.Now()); len(names) != len(files) {
		t.Errorf("left %q, want all of these young ones", names)
	}
	if names := left(time.Now().Add(2 * newLife)); len(names) != 2 {
		t.Errorf("left %q, want the one that can't be read, and the one that isn't ours", names)
	}
	if names := left(time.Now().Add(2 * malformedLife)); len(names) != 1 || names[0] != "README" {
		t.Errorf("left %q", names)
	}
	for _, name := range []string{held, e.Record().Tag} {
		if _, err := os.Stat(j.path(name)); err != nil {
			t.Error("a living one was taken:", err)
		}
	}
}

// Stale finds the dead among the living, and sweeps what it meets.
func TestStale(t *testing.T) {
	j, living := begun(t)
	another, err := j.Begin(Record{Tag: NewTag(), Target: "mi-2"})
	if err != nil {
		t.Fatal(err)
	}
	defer another.Release()
	if items, err := j.Stale(time.Now()); err != nil || len(items) > 0 {
		t.Errorf("beside the living: %v, %v", items, err)
	}
	litter := j.path(NewTag() + newSuffix)
	if err := os.WriteFile(litter, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	living.Release()
	items, err := j.Stale(time.Now().Add(2 * newLife))
	if err != nil || len(items) != 1 || items[0].Tag != living.Record().Tag || items[0].State != Stale {
		t.Errorf("got %v, %v; want the one that was released", items, err)
	}
	if _, err := os.Stat(litter); !errors.Is(err, fs.ErrNotExist) {
		t.Error("not swept:", err)
	}
	edit(t, j, living, func(r *Record) { r.Host = "another" })
	if items, err := j.Stale(time.Now()); err != nil || len(items) > 0 {
		t.Errorf("of another host: %v, %v", items, err)
	}
}

// Many reapers at once: each record is claimed, and by one at a time.
func TestManyReapers(t *testing.T) {
	j, first := begun(t)
	first.Release()
	for range 20 {
		e, err := j.Begin(Record{Tag: NewTag(), Target: "mi-1"})
		if err != nil {
			t.Fatal(err)
		}
		e.Release()
	}
	living, err := j.Begin(Record{Tag: NewTag(), Target: "mi-2"})
	if err != nil {
		t.Fatal(err)
	}
	defer living.Release()
	var removed atomic.Int64
	var reapers sync.WaitGroup
	for range 8 {
		reapers.Go(func() {
			names, err := j.names(isTag)
			if err != nil {
				t.Error(err)
			}
			for _, tag := range names {
				e, err := j.Claim(tag)
				switch {
				case err == nil:
					if err := e.Remove(); err != nil {
						t.Error(err)
					}
					removed.Add(1)
				case !errors.Is(err, ErrHeld) && !errors.Is(err, fs.ErrNotExist):
					t.Error(err)
				}
			}
		})
	}
	reapers.Wait()
	if it := only(t, j); it.Target != "mi-2" || it.State != Live || removed.Load() != 21 {
		t.Errorf("%d removed, left %+v", removed.Load(), it)
	}
}

// A Sweep that takes the file of a Begin that was stopped for long, before it was locked, does no harm.
func TestBeginStartsOver(t *testing.T) {
	j, e := begun(t)
	e.Release()
	const swept = beginTries - 1
	made := 0
	testOnlyStep = func(step string) {
		if step != "made" {
			return
		}
		if made++; made <= swept {
			if err := j.Sweep(time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		}
	}
	defer func() { testOnlyStep = func(string) {} }()
	again, err := j.Begin(Record{Tag: NewTag(), Target: "mi-2"})
	if err != nil || made != swept+1 {
		t.Fatalf("%d tries, %v", made, err)
	}
	if _, err := os.Stat(again.path); err != nil {
		t.Error(err)
	}
	if err := again.Remove(); err != nil {
		t.Error(err)
	}
}
