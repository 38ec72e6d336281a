package main

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ssm-ssh/internal/report"
	"ssm-ssh/sshproxy"
)

// runtimeAge is how old a file in the runtime folder is before a new connection looks at it in the
// background. A young one may be in the making.
const runtimeAge = time.Hour

// tidyRuntime removes from our runtime folder what processes have left that died: sockets that nobody
// listens on, and locks that nobody holds. Unless everything is asked for, young files are let be, and
// the control sockets too: their masters would be woken, and those of the dead are found by the journal.
func tidyRuntime(everything bool, logf report.Logf) (removed int) {
	dir, err := runtimeDir()
	if err != nil {
		return 0
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		logf(1, "%v", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !everything && (isHash(e.Name()) || time.Since(info.ModTime()) < runtimeAge) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := removeDead(path, info.Mode()); err != nil {
			logf(2, "%s: %v", path, err)
		}
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			removed++
		}
	}
	return removed
}

// removeDead removes a socket or a lock that belongs to nobody any more, and nothing else.
func removeDead(path string, mode fs.FileMode) error {
	key, isLock := strings.CutSuffix(filepath.Base(path), lockSuffix)
	switch {
	case mode.Type() == os.ModeSocket:
		return sshproxy.RemoveStale(path)
	case isLock && isHash(key):
		return removeFreeLock(path)
	}
	return nil
}

// isHash knows the names of control sockets that nobody has named.
func isHash(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == hashLetters
}

// removeFreeLock removes a lock that nobody holds. Whoever opened it before and gets it later sees that
// it has lost its name, and starts over.
func removeFreeLock(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil // held: in use
	}
	return os.Remove(path)
}
