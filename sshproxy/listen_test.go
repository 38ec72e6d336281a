package sshproxy

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// leaveStale makes a socket whose owner has died without removing it.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	fd, err := streamSocket()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
}

func TestListenNames(t *testing.T) {
	dir := shortDir(t)
	ofLength := func(n int) string { return filepath.Join(dir, strings.Repeat("p", n-len(dir)-1)) }
	deep := filepath.Join(dir, strings.Repeat("d", sunPathBytes-len(dir)-4))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	tooLong := ofLength(sunPathBytes)
	tests := []struct{ name, path, text string }{
		{name: "short", path: filepath.Join(dir, "c")},
		{name: "beyond OpenSSH's limit for masters", path: ofLength(91)},
		{name: "longest", path: ofLength(sunPathBytes - 1)},
		{name: "one letter in a deep folder", path: filepath.Join(deep, "x")},
		{name: "too long", path: tooLong, text: fmt.Sprintf("ControlPath too long ('%s' >= %d bytes)", tooLong, sunPathBytes)},
		{name: "no folder", path: filepath.Join(dir, "none", "c"),
			text: "unix_listener: cannot bind to path " + filepath.Join(dir, "none", "c") + ": No such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := Listen(tt.path)
			if tt.text != "" {
				var text *TextError
				if !errors.As(err, &text) || text.Text != tt.text {
					t.Errorf("got %v, want %s", err, tt.text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(tt.path)
			if err != nil || info.Mode() != os.ModeSocket|controlMode {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if entries, _ := os.ReadDir(filepath.Dir(tt.path)); filepath.Dir(tt.path) != dir && len(entries) != 1 {
				t.Errorf("left beside it: %v", entries)
			}
			if !alive(tt.path) {
				t.Error("nobody listens")
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(tt.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

func TestListenOnOccupiedPath(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "c")
	t.Run("stale", func(t *testing.T) {
		leaveStale(t, path)
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := Listen(path); !errors.Is(err, ErrControlPathTaken) {
			t.Errorf("second listener: %v", err)
		}
		if !alive(path) {
			t.Error("the live socket is gone")
		}
	})
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(dir, "file")
		writeFile(t, file, "content", 0o600)
		if _, err := Listen(file); !errors.Is(err, ErrControlPathTaken) {
			t.Errorf("got %v", err)
		}
		if content, _ := os.ReadFile(file); string(content) != "content" {
			t.Error("the file was touched")
		}
	})
	t.Run("replaced by another master", func(t *testing.T) {
		first, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		second, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		if !alive(path) {
			t.Error("the first one removed the second's socket")
		}
	})
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestListenRace(t *testing.T) {
	path := filepath.Join(shortDir(t), "c")
	for range 20 {
		leaveStale(t, path)
		var mu sync.Mutex
		var won []*Listener
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l, err := Listen(path)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, l)
				case !errors.Is(err, ErrControlPathTaken):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) == 0 || !alive(path) {
			t.Fatalf("%d won; alive %v", len(won), alive(path))
		}
		for _, l := range won {
			l.Close()
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("after the end: %v", err)
		}
	}
}

func TestPeerAllowed(t *testing.T) {
	tests := []struct {
		name string
		peer uint32
		own  int
		text string
	}{
		{name: "own", peer: 1000, own: 1000},
		{name: "root", peer: 0, own: 1000},
		{name: "foreign", peer: 1001, own: 1000, text: "multiplex uid mismatch: peer euid 1001 != uid 1000"},
		{name: "foreign to root", peer: 1001, own: 0, text: "multiplex uid mismatch: peer euid 1001 != uid 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := peerAllowed(tt.peer, tt.own)
			if (tt.text == "") != (err == nil) || err != nil && err.Error() != tt.text {
				t.Errorf("got %v, want %q", err, tt.text)
			}
		})
	}
}

func TestForeignUserIsTurnedAway(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs another user")
	}
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	// The mode would keep it out already; the credentials must too.
	if err := errors.Join(os.Chmod(m.path, 0o666), os.Chmod(filepath.Dir(m.path), 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := stockSSH(t, m.path, "-O", "check", "x")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if got := runCommand(t, cmd); got.status != 255 || strings.Contains(got.stderr, "Master running") {
		t.Errorf("got %+v", got)
	}
}

func TestDialMuxErrors(t *testing.T) {
	dir := shortDir(t)
	stale, missing, file := filepath.Join(dir, "stale"), filepath.Join(dir, "missing"), filepath.Join(dir, "file")
	leaveStale(t, stale)
	writeFile(t, file, "", 0o600)
	tests := []struct {
		name, path, text string
		cause            error
	}{
		{name: "missing", path: missing, text: "Control socket connect(" + missing + "): No such file or directory", cause: os.ErrNotExist},
		{name: "stale", path: stale, text: "Control socket connect(" + stale + "): Connection refused", cause: syscall.ECONNREFUSED},
		{name: "not a socket", path: file, text: "Control socket connect(" + file + "): Connection refused", cause: syscall.ECONNREFUSED},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := DialMux(testContext(t), tt.path)
			if err == nil || err.Error() != tt.text || !errors.Is(err, tt.cause) {
				t.Errorf("got %v, want %s", err, tt.text)
			}
		})
	}
}

func TestDialMuxWaitsForAFullQueue(t *testing.T) {
	path := filepath.Join(shortDir(t), "c")
	fd, err := streamSocket()
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var full []net.Conn
	for {
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		full = append(full, c)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := dialControl(testContext(t), path)
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	})
	for range len(full) + 1 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	wg.Wait()
	for _, c := range full {
		c.Close()
	}
}
