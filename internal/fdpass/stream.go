package fdpass

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// deviceChunk bounds a write to a terminal or another device: poll promises room for one byte only,
// and what doesn't fit holds the call.
const deviceChunk = 1024

// kind is how a descriptor can be tried without waiting.
type kind int

const (
	kindSocket kind = iota // MSG_DONTWAIT
	kindPipe               // RWF_NOWAIT, or poll and at most PIPE_BUF
	kindDevice             // poll and a short chunk
	kindFile               // always ready
)

// Stream is one descriptor that was passed to us. One goroutine may read while others write; Close
// may be called at any time and by anyone.
type Stream struct {
	poller *Poller
	fd     int
	kind   kind

	plain   atomic.Bool   // the system has no "don't wait" for this pipe
	closing chan struct{} // closed by Close

	mu     sync.Mutex
	users  int // calls that hold the descriptor
	closed bool
}

// NewStream takes over fd; after an error it is closed.
func NewStream(p *Poller, fd int) (*Stream, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd) // it is no use to anyone
		return nil, fmt.Errorf("fdpass: examining descriptor: %w", err)
	}
	s := &Stream{poller: p, fd: fd, kind: kindDevice, closing: make(chan struct{})}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		s.kind = kindSocket
	case unix.S_IFIFO:
		s.kind = kindPipe
	case unix.S_IFREG:
		s.kind = kindFile
	}
	return s, nil
}

// Read reads what there is, waiting for the first byte. The error is io.EOF at the end and
// os.ErrClosed after Close.
func (s *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !s.enter() {
		return 0, os.ErrClosed
	}
	defer s.leave()
	n, err := s.attempt(unix.POLLIN, p)
	switch {
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write writes all of p, waiting as often as need be. When nobody reads any more the error holds
// EPIPE; SIGPIPE is never raised (sockets: MSG_NOSIGNAL; else Go's runtime drops it).
func (s *Stream) Write(p []byte) (int, error) {
	if !s.enter() {
		return 0, os.ErrClosed
	}
	defer s.leave()
	written := 0
	for written < len(p) {
		n, err := s.attempt(unix.POLLOUT, p[written:])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Control calls f with the descriptor, which is open until f returns.
func (s *Stream) Control(f func(fd int)) error {
	if !s.enter() {
		return os.ErrClosed
	}
	defer s.leave()
	f(s.fd)
	return nil
}

// Close ends the calls that wait and gives the descriptor up: at once, or when the last call that
// holds it has returned. Further calls do nothing.
func (s *Stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.closing)
	if s.users > 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(s.fd))
}

func (s *Stream) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.users++
	return true
}

func (s *Stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 && s.closed {
		_ = unix.Close(s.fd) // the one who called Close has gone
	}
}

// attempt tries one transfer, in the direction of events, until it does not have to wait.
func (s *Stream) attempt(events int16, p []byte) (int, error) {
	try, name := s.tryRead, "read"
	if events == unix.POLLOUT {
		try, name = s.tryWrite, "write"
	}
	for {
		select {
		case <-s.closing:
			return 0, os.ErrClosed
		default:
		}
		n, err := try(p)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if err := s.poller.wait(s.fd, events, s.closing); err != nil {
				return 0, err
			}
		default:
			return 0, os.NewSyscallError(name, err)
		}
	}
}

// tryRead and tryWrite transfer without waiting, or say EAGAIN.
func (s *Stream) tryRead(p []byte) (int, error) {
	switch {
	case s.kind == kindSocket:
		n, _, err := unix.Recvfrom(s.fd, p, unix.MSG_DONTWAIT)
		return max(n, 0), err
	case s.kind == kindPipe && !s.plain.Load():
		n, err := readNoWait(s.fd, p)
		if !s.unsupported(err) {
			return max(n, 0), err
		}
	}
	if s.kind != kindFile && !ready(s.fd, unix.POLLIN) {
		return 0, unix.EAGAIN
	}
	n, err := unix.Read(s.fd, p)
	return max(n, 0), err
}

func (s *Stream) tryWrite(p []byte) (int, error) {
	switch {
	case s.kind == kindSocket:
		n, err := unix.SendmsgN(s.fd, p, nil, nil, sendFlags)
		return max(n, 0), err
	case s.kind == kindFile:
		n, err := unix.Write(s.fd, p)
		return max(n, 0), err
	case s.kind == kindPipe && !s.plain.Load():
		n, err := writeNoWait(s.fd, p)
		if !s.unsupported(err) {
			return max(n, 0), err
		}
	}
	if !ready(s.fd, unix.POLLOUT) {
		return 0, unix.EAGAIN
	}
	chunk := deviceChunk
	if s.kind == kindPipe {
		chunk = pipeBuf
	}
	n, err := unix.Write(s.fd, p[:min(len(p), chunk)])
	return max(n, 0), err
}

// unsupported notes that the system can't try a pipe without waiting.
func (s *Stream) unsupported(err error) bool {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		s.plain.Store(true)
		return true
	}
	return false
}
