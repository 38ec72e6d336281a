package fdpass

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

func newPoller(t *testing.T) *Poller {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func newStream(t *testing.T, p *Poller, fd int) *Stream {
	t.Helper()
	s, err := NewStream(p, fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func nonblockingPipe(fds *[2]int) error {
	return errors.Join(unix.Pipe(fds[:]), unix.SetNonblock(fds[0], true), unix.SetNonblock(fds[1], true))
}

// pairs are the two-ended things that a client may lend us: what is written to w arrives at r.
var pairs = []struct {
	name  string
	plain bool // as on a system that can't try without waiting
	make  func(fds *[2]int) error
}{
	{name: "pipe", make: func(fds *[2]int) error { return unix.Pipe(fds[:]) }},
	{name: "pipe the old way", plain: true, make: func(fds *[2]int) error { return unix.Pipe(fds[:]) }},
	{name: "nonblocking pipe", make: nonblockingPipe},
	{name: "nonblocking pipe the old way", plain: true, make: nonblockingPipe},
	{name: "socketpair", make: func(fds *[2]int) error { return socketpair(fds) }},
	{name: "nonblocking socketpair", make: func(fds *[2]int) error {
		return errors.Join(socketpair(fds), unix.SetNonblock(fds[0], true), unix.SetNonblock(fds[1], true))
	}},
	{name: "terminal", make: rawTerminal},
}

func socketpair(fds *[2]int) (err error) {
	*fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	return err
}

// rawTerminal returns a pseudo-terminal's controlling side to read, and its raw terminal to write.
func rawTerminal(fds *[2]int) error {
	controller, terminal, err := pty.Open()
	if err != nil {
		return err
	}
	defer controller.Close()
	defer terminal.Close()
	if _, err := term.MakeRaw(int(terminal.Fd())); err != nil {
		return err
	}
	var errA, errB error
	fds[0], errA = unix.Dup(int(controller.Fd()))
	fds[1], errB = unix.Dup(int(terminal.Fd()))
	return errors.Join(errA, errB)
}

func statusFlags(t *testing.T, fd int) int {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

func TestStreamCarriesAll(t *testing.T) {
	p := newPoller(t)
	data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // 1 MiB: many times any buffer
	for _, tt := range pairs {
		t.Run(tt.name, func(t *testing.T) {
			var fds [2]int
			if err := tt.make(&fds); err != nil {
				t.Fatal(err)
			}
			before := [2]int{statusFlags(t, fds[0]), statusFlags(t, fds[1])}
			r, w := newStream(t, p, fds[0]), newStream(t, p, fds[1])
			r.plain.Store(tt.plain)
			w.plain.Store(tt.plain)

			var wg sync.WaitGroup
			wg.Go(func() {
				if n, err := w.Write(data); err != nil || n != len(data) {
					t.Errorf("wrote %d: %v", n, err)
				}
			})
			got := sha256.New()
			if _, err := io.CopyN(got, r, int64(len(data))); err != nil {
				t.Errorf("reading: %v", err)
			}
			wg.Wait()
			if want := sha256.Sum256(data); !bytes.Equal(got.Sum(nil), want[:]) {
				t.Error("bytes differ")
			}
			if after := [2]int{statusFlags(t, fds[0]), statusFlags(t, fds[1])}; after != before {
				t.Errorf("status flags changed from %x to %x", before, after)
			}
			w.Close()
			if n, err := r.Read(make([]byte, 1)); n != 0 || !endOfInput(err) {
				t.Errorf("after the end: %d, %v", n, err)
			}
		})
	}
}

// endOfInput accepts EIO, a terminal's way to say that the other side has gone.
func endOfInput(err error) bool { return err == io.EOF || errors.Is(err, unix.EIO) }

func TestStreamCloseEndsBlockedRead(t *testing.T) {
	p := newPoller(t)
	for _, tt := range pairs {
		t.Run(tt.name, func(t *testing.T) {
			var fds [2]int
			if err := tt.make(&fds); err != nil {
				t.Fatal(err)
			}
			r, _ := newStream(t, p, fds[0]), newStream(t, p, fds[1])
			r.plain.Store(tt.plain)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
					t.Errorf("got %v, want os.ErrClosed", err)
				}
			})
			awaitWaiters(t, p, 1)
			r.Close()
			wg.Wait()
			if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
				t.Errorf("second read: %v", err)
			}
		})
	}
}

func TestStreamCloseEndsBlockedWrite(t *testing.T) {
	p := newPoller(t)
	for _, tt := range pairs {
		if tt.name == "terminal" {
			continue // may be held by the system: see the package's comment
		}
		t.Run(tt.name, func(t *testing.T) {
			var fds [2]int
			if err := tt.make(&fds); err != nil {
				t.Fatal(err)
			}
			_, w := newStream(t, p, fds[0]), newStream(t, p, fds[1])
			w.plain.Store(tt.plain)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := w.Write(make([]byte, 4<<20)); !errors.Is(err, os.ErrClosed) {
					t.Errorf("got %v, want os.ErrClosed", err)
				}
			})
			awaitWaiters(t, p, 1)
			w.Close()
			wg.Wait()
		})
	}
}

// awaitWaiters returns when n calls sleep in the poller.
func awaitWaiters(t *testing.T, p *Poller, n int) {
	t.Helper()
	for {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		have := len(p.waiters)
		p.mu.Unlock()
		if have == n {
			return
		}
	}
}

func TestStreamWriteWithoutReader(t *testing.T) {
	p := newPoller(t)
	for _, tt := range pairs {
		t.Run(tt.name, func(t *testing.T) {
			var fds [2]int
			if err := tt.make(&fds); err != nil {
				t.Fatal(err)
			}
			w := newStream(t, p, fds[1])
			w.plain.Store(tt.plain)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := w.Write(make([]byte, 4<<20))
				if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EIO) {
					t.Errorf("got %v, want a broken pipe", err)
				}
			})
			if tt.name != "terminal" {
				awaitWaiters(t, p, 1) // the reader goes while the writer sleeps
			}
			unix.Close(fds[0])
			wg.Wait()
		})
	}
}

func TestStreamOnOneSocketForBoth(t *testing.T) {
	p := newPoller(t)
	var fds [2]int
	if err := socketpair(&fds); err != nil {
		t.Fatal(err)
	}
	second, err := unix.Dup(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	in, out := newStream(t, p, fds[0]), newStream(t, p, second)
	peer := newStream(t, p, fds[1])
	if _, err := peer.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := in.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("read %q: %v", buf[:n], err)
	}
	in.Close() // one direction's end leaves the other alone
	if _, err := out.Write([]byte("pong")); err != nil {
		t.Fatal(err)
	}
	if n, err := peer.Read(buf); err != nil || string(buf[:n]) != "pong" {
		t.Fatalf("read %q: %v", buf[:n], err)
	}
}

func TestStreamOnFiles(t *testing.T) {
	p := newPoller(t)
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(t, p, fd)
	if _, err := s.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); err != nil || string(got) != "content" {
		t.Errorf("read %q: %v", got, err)
	}

	null, err := unix.Open(os.DevNull, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := newStream(t, p, null)
	if _, err := n.Write(make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	if _, err := n.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}

func TestStreamRejectsClosedDescriptor(t *testing.T) {
	if _, err := NewStream(newPoller(t), -1); err == nil {
		t.Error("no error for a descriptor that isn't open")
	}
}

func TestPollerCloseEndsWaits(t *testing.T) {
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	r, _ := pipe(t)
	fd, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(t, p, fd)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v, want os.ErrClosed", err)
		}
	})
	awaitWaiters(t, p, 1)
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}
