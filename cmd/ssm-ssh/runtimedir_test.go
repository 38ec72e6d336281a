package main

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/report"
)

func TestTidyRuntime(t *testing.T) {
	base, err := os.MkdirTemp("", "run") // t.TempDir's names are too long for a socket's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	t.Setenv("XDG_RUNTIME_DIR", base)
	dir, err := runtimeDir()
	if err != nil {
		t.Fatal(err)
	}
	name := func(letter string) string { return strings.Repeat(letter, hashLetters) }
	listen := func(name string, live bool) {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if !live {
			l.Close()
		} else {
			t.Cleanup(func() { l.Close() })
		}
	}
	listen(name("a"), true)
	listen(name("b"), false)
	listen("TEMPORARY", false)
	held, err := takeLock(filepath.Join(dir, name("c")+lockSuffix))
	if err != nil {
		t.Fatal(err)
	}
	defer held.unlock()
	for _, file := range []string{name("d") + lockSuffix, "notes.lock", "notes"} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	before := left()
	if n := tidyRuntime(false, report.Discard); n != 0 || !slices.Equal(left(), before) {
		t.Errorf("%d young files removed, left %q", n, left())
	}
	for _, file := range before {
		old := time.Now().Add(-2 * runtimeAge)
		if err := os.Chtimes(filepath.Join(dir, file), old, old); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{name("a"), name("b"), name("c") + lockSuffix, "notes", "notes.lock"}
	if n := tidyRuntime(false, report.Discard); n != 2 || !slices.Equal(left(), want) {
		t.Errorf("%d old files removed, left %q, want %q", n, left(), want)
	}
	want = slices.Delete(want, 1, 2)
	if n := tidyRuntime(true, report.Discard); n != 1 || !slices.Equal(left(), want) {
		t.Errorf("%d removed when asked for everything, left %q, want %q", n, left(), want)
	}
}

// A lock whose name was taken away while somebody waited for it is no lock: two could hold it.
func TestLockThatLostItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x"+lockSuffix)
	first, err := takeLock(path)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan *creationLock)
	go func() {
		lock, err := takeLock(path)
		if err != nil {
			t.Error(err)
		}
		second <- lock
	}()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first.unlock()
	lock := <-second
	defer lock.unlock()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		t.Error("a third one has got the lock too")
	}
}
