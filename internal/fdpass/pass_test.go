package fdpass

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socketPair returns two connected Unix stream sockets.
func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := [2]*net.UnixConn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

// pipe returns the ends of a pipe as files.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func sendJoined(t *testing.T, c *net.UnixConn, body string, files ...*os.File) {
	t.Helper()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := c.WriteMsgUnix([]byte(body), unix.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
}

func TestReceiver(t *testing.T) {
	tests := []struct {
		name string
		send func(t *testing.T, c *net.UnixConn, f *os.File)
	}{
		{name: "body and descriptor apart", send: func(t *testing.T, c *net.UnixConn, f *os.File) {
			if _, err := c.Write([]byte("body")); err != nil {
				t.Fatal(err)
			}
			if err := Send(c, f); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "body and descriptor joined by a relay", send: func(t *testing.T, c *net.UnixConn, f *os.File) {
			sendJoined(t, c, "body\x00", f)
		}},
		{name: "bytes one at a time", send: func(t *testing.T, c *net.UnixConn, f *os.File) {
			for _, b := range []byte("body") {
				if _, err := c.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			if err := Send(c, f); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := socketPair(t)
			_, w := pipe(t)
			tt.send(t, a, w)
			r := NewReceiver(b)
			defer r.Close()
			body := make([]byte, 4)
			if _, err := io.ReadFull(r, body); err != nil || string(body) != "body" {
				t.Fatalf("read %q: %v", body, err)
			}
			fd, err := r.NextFD()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %x, %v: want close-on-exec", flags, err)
			}
			if !sameFile(t, fd, int(w.Fd())) {
				t.Error("another file was received")
			}
		})
	}
}

func sameFile(t *testing.T, a, b int) bool {
	t.Helper()
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(a, &x), unix.Fstat(b, &y)); err != nil {
		t.Fatal(err)
	}
	return x.Dev == y.Dev && x.Ino == y.Ino
}

func TestReceiverWithoutDescriptor(t *testing.T) {
	a, b := socketPair(t)
	r := NewReceiver(b)
	if _, err := a.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.NextFD(); !errors.Is(err, ErrNoDescriptor) {
		t.Errorf("got %v, want ErrNoDescriptor", err)
	}
	a.Close()
	if _, err := r.NextFD(); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}

func TestReceiverClosesSurplus(t *testing.T) {
	a, b := socketPair(t)
	reader, w := pipe(t)
	many := make([]*os.File, controlRoom+4)
	for i := range many {
		many[i] = w
	}
	sendJoined(t, a, "x", many...)
	r := NewReceiver(b)
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if len(r.queue) != queueLimit {
		t.Errorf("%d queued, want %d", len(r.queue), queueLimit)
	}
	r.Close()
	w.Close()
	// With every copy of the writing end closed the reading end is at its end.
	if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want EOF: a copy is still open", err)
	}
}

func TestSendLeavesFlagsAlone(t *testing.T) {
	a, b := socketPair(t)
	var fds [2]int
	if err := nonblockingPipe(&fds); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	f := os.NewFile(uintptr(fds[0]), "nonblocking")
	defer f.Close()
	if err := Send(a, f); err != nil {
		t.Fatal(err)
	}
	fd, err := NewReceiver(b).NextFD()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
		t.Error("sending made the description blocking")
	}
}
