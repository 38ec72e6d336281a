package sshproxy

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
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

	"golang.org/x/crypto/ssh"
)

// Who writes a known_hosts file. Clients of ours hold the file's lock (flock(2)) while they add to it or
// write it anew. OpenSSH's know of no lock: they add lines by one write at the end, and write anew by
// renaming a copy. So we add by one write too, look afterwards whether it went into a file that is still
// there, and after a rename look for lines that came into the old file meanwhile. What stays is a line that
// we add between OpenSSH's reading and its renaming, a moment that it has with its own kind as well.
const (
	// lockPatience is for how long a writer waits for others. They need microseconds; one that was stopped
	// must not stop us.
	lockPatience = 2 * time.Second
	lockPause    = 2 * time.Millisecond
	// lateLines is how long after a rename somebody may still write into the file that he had opened before.
	lateLines = 20 * time.Millisecond
	// fileTries bounds how often a file may be replaced under our hands.
	fileTries = 16
)

var errReplaced = errors.New("known hosts: replaced again and again")

// appendKnownHost adds a key to file, making it and its directory when missing. A line that another client
// has added meanwhile isn't repeated.
func appendKnownHost(file, name string, key ssh.PublicKey, hashed bool) error {
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := openLocked(file, os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return err
	}
	if knows(f, name, key) {
		return f.Close()
	}
	return appendTo(f, file, knownHostLine(name, key, hashed))
}

// knows reports whether a regular file has the key under the name.
func knows(f *os.File, name string, key ssh.PublicKey) bool {
	if !isRegular(f) {
		return false
	}
	return !scanKnownHostsReader(io.NewSectionReader(f, 0, 1<<62), f.Name(), func(entry *knownHost) bool {
		return entry.marker != "" || !sameKey(entry.key, key) || !entry.matches(name)
	})
}

// knownHostLine is a line as OpenSSH writes it.
func knownHostLine(name string, key ssh.PublicKey, hashed bool) []byte {
	name = strings.ToLower(name)
	enc := base64.StdEncoding
	if hashed {
		salt := make([]byte, sha1.Size)
		_, _ = rand.Read(salt) // it never fails
		name = hashMagic + enc.EncodeToString(salt) + "|" + enc.EncodeToString(hashName(salt, name))
	}
	return fmt.Appendf(nil, "%s %s %s\n", name, key.Type(), enc.EncodeToString(key.Marshal()))
}

// appendTo adds whole lines to a file that openLocked has opened for it, and closes it.
func appendTo(f *os.File, file string, lines []byte) (err error) {
	for range fileTries {
		text := lines
		if endsInMidLine(f) {
			text = append([]byte("\n"), lines...)
		}
		_, err = f.Write(text)
		stays := isStill(f, file)
		err = errors.Join(err, f.Close())
		if err != nil || stays {
			return err
		}
		if f, err = openLocked(file, os.O_RDWR|os.O_CREATE|os.O_APPEND); err != nil {
			return err
		}
		if old, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<62)); err == nil && bytes.Contains(old, lines) {
			return f.Close() // it was taken over
		}
	}
	f.Close()
	return errReplaced
}

// openLocked opens the file and takes its lock, which goes with the descriptor. A file system without locks
// has none.
func openLocked(file string, flag int) (*os.File, error) {
	for range fileTries {
		f, err := os.OpenFile(file, flag, 0o600)
		if err != nil {
			return nil, err
		}
		if !isRegular(f) {
			return f, nil
		}
		lockFile(f)
		if isStill(f, file) {
			return f, nil
		}
		f.Close() // its holder has put another in its place
	}
	return nil, errReplaced
}

// lockFile waits for the lock as long as is reasonable; writing without is better than not at all.
func lockFile(f *os.File) {
	for limit := time.Now().Add(lockPatience); time.Now().Before(limit); time.Sleep(lockPause) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func isRegular(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

// isStill reports whether the path leads to the open file.
func isStill(f *os.File, path string) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there)
}

// endsInMidLine reports whether the file's last byte is not a newline, as hand-edited files have it.
func endsInMidLine(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n'
}

// replaceKnownHosts makes the keys those that file has for name, without a marker: it takes others away and
// adds those that are missing. The file as it was stays beside it with .old (hostfile.c,
// hostfile_replace_entries).
func (c *Client) replaceKnownHosts(file, name string, keys []ssh.PublicKey) error {
	file, err := filepath.EvalSymlinks(file) // the link is the user's
	if err != nil {
		return err
	}
	f, err := openLocked(file, os.O_RDWR|os.O_APPEND)
	mayAdd := err == nil
	if errors.Is(err, fs.ErrPermission) {
		f, err = openLocked(file, os.O_RDONLY) // the folder may still be ours
	}
	if err != nil {
		return err
	}
	old, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<62))
	if err != nil {
		f.Close()
		return err
	}
	kept, missing := c.keptLines(file, old, name, keys)
	var added []byte
	for _, key := range missing {
		c.cfg.verbosef("Adding new key for %s to %s: %s %s", name, file, key.Type(), c.cfg.fingerprint(key))
		added = append(added, knownHostLine(name, key, c.cfg.HashKnownHosts)...)
	}
	switch {
	case len(kept) < len(old), len(added) > 0 && !mayAdd:
		defer f.Close()
		return renameOver(file, f, int64(len(old)), append(wholeLines(kept), added...))
	case len(added) > 0:
		return appendTo(f, file, added)
	}
	return f.Close()
}

// wholeLines is a file's text with its last line complete.
func wholeLines(text []byte) []byte {
	if n := len(text); n > 0 && text[n-1] != '\n' {
		return append(text, '\n')
	}
	return text
}

// keptLines returns the text without the lines that give name a key other than keys, and the keys that none
// gives it.
func (c *Client) keptLines(file string, text []byte, name string, keys []ssh.PublicKey) (kept []byte, missing []ssh.PublicKey) {
	missing = slices.Clone(keys)
	n := 0
	for line := range bytes.Lines(text) {
		n++
		entry, ok := parseKnownHost(line)
		if !ok && !isComment(line) {
			c.cfg.verbosef("%s:%d: invalid known_hosts entry", file, n)
		}
		if !ok || entry.marker != "" || !entry.matches(name) {
			kept = append(kept, line...)
			continue
		}
		same := func(key ssh.PublicKey) bool { return sameKey(key, entry.key) }
		if slices.ContainsFunc(keys, same) {
			missing = slices.DeleteFunc(missing, same)
			kept = append(kept, line...)
			continue
		}
		c.cfg.verbosef("%s:%d: Removed %s key for host %s", file, n, keyTypeName(entry.key), name)
	}
	return kept, missing
}

// isComment reports whether a line says nothing, and means to.
func isComment(line []byte) bool {
	line = bytes.TrimLeft(line, " \t")
	return len(line) == 0 || line[0] == '#' || line[0] == '\n'
}

// renameOver puts text in the place of file, of which f is open and size bytes were read. What others have
// added to the old file since is carried over.
func renameOver(file string, f *os.File, size int64, text []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = temp.Write(text)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err == nil {
		err = backUp(file)
	}
	if err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		os.Remove(temp.Name())
		return err
	}
	for range 2 {
		late, err := io.ReadAll(io.NewSectionReader(f, size, 1<<62))
		if err != nil {
			return err
		}
		if len(late) > 0 {
			size += int64(len(late))
			next, err := openLocked(file, os.O_RDWR|os.O_APPEND)
			if err != nil {
				return err
			}
			if err := appendTo(next, file, late); err != nil {
				return err
			}
		}
		time.Sleep(lateLines)
	}
	return nil
}

// backUp keeps the file as it is under its name with .old.
func backUp(file string) error {
	if err := os.Remove(file + ".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Link(file, file+".old")
}
