package sshproxy

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// listenBacklog is how many clients may wait to be accepted. OpenSSH's master has 64; more make
	// its client wait in connect(2), and ours try again.
	listenBacklog = 1024

	// controlMode lets nobody but the owner and root connect (mux.c sets umask 0177).
	controlMode = 0o600

	// nameTries bounds the search for a free temporary name, which may have one letter only.
	nameTries = 64

	// temporaryName is the length of a temporary name where the path leaves room for it.
	temporaryName = 12
)

// ErrControlPathTaken says that a live master listens on the control path.
var ErrControlPathTaken = errors.New("sshproxy: a control master is already there")

// Listener is a control socket. It belongs to the Master that serves it, or to its maker, who then
// calls Close.
type Listener struct {
	path     string
	file     os.FileInfo // tells our socket from one that has taken its place
	listener *net.UnixListener

	unlinkOnce sync.Once
	stopped    chan struct{} // closed with the name's end
}

// Listen makes a control socket at path. It is bound under a short name in the same folder and
// linked into place when it listens (mux.c, muxserver_listen), so that nobody sees one that does
// not. A socket left by a dead master is replaced. The error is ErrControlPathTaken when a live one
// is there, else a *TextError.
func Listen(path string) (*Listener, error) {
	if err := checkControlPath(path); err != nil {
		return nil, err
	}
	fd, temporary, err := bindTemporary(path)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // net.FileListener has a copy
	defer os.Remove(temporary)

	l := &Listener{path: path, stopped: make(chan struct{})}
	if l.file, err = os.Lstat(temporary); err != nil {
		return nil, listenError(path, "cannot bind to path "+path, err)
	}
	if err := os.Chmod(temporary, controlMode); err != nil {
		return nil, listenError(path, "cannot bind to path "+path, err)
	}
	if err := unix.Listen(fd, listenBacklog); err != nil {
		return nil, listenError(path, "cannot listen on path "+path, err)
	}
	if err := linkInPlace(temporary, path); err != nil {
		return nil, err
	}
	listener, err := net.FileListener(f)
	if err != nil {
		l.unlink()
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l.listener = listener.(*net.UnixListener)
	return l, nil
}

// checkControlPath refuses what doesn't fit into a socket address, in OpenSSH's words (ssh.c).
func checkControlPath(path string) error {
	if len(path) >= sunPathBytes {
		return &TextError{Text: fmt.Sprintf("ControlPath too long ('%s' >= %d bytes)", path, sunPathBytes)}
	}
	return nil
}

// listenError has the words of misc.c, unix_listener.
func listenError(path, what string, err error) error {
	return &TextError{Text: fmt.Sprintf("unix_listener: %s: %s", what, strerror(err)), Err: fmt.Errorf("control socket %s: %w", path, err)}
}

// bindTemporary returns a bound socket and its name, beside path and no longer than an address may be.
func bindTemporary(path string) (fd int, name string, err error) {
	fd, err = streamSocket()
	if err != nil {
		return -1, "", fmt.Errorf("control socket %s: %w", path, err)
	}
	for range nameTries {
		name = temporaryBeside(path)
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was made with it
		return -1, "", listenError(path, "cannot bind to path "+path, err)
	}
	return fd, name, nil
}

// temporaryBeside returns a random name in path's folder.
func temporaryBeside(path string) string {
	dir := strings.TrimSuffix(path, filepath.Base(path))
	length := max(1, min(temporaryName, sunPathBytes-1-len(dir)))
	return dir + rand.Text()[:length]
}

// linkInPlace gives the listening socket its public name; link(2) fails where there is one already.
func linkInPlace(temporary, path string) error {
	for range nameTries {
		err := os.Link(temporary, path)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EEXIST):
			return listenError(path, "cannot bind to path "+path, err)
		}
		if err := RemoveStale(path); err != nil {
			return err
		}
	}
	return ErrControlPathTaken
}

// RemoveStale takes away a control socket that nobody listens on; there may be none. The error is
// ErrControlPathTaken when somebody does, or when it is no socket. Another process may put a live one
// there at any moment, so the name is moved aside before the final look, and moved back if it turns out
// to be alive.
func RemoveStale(path string) error {
	if isSocket, err := socketAt(path); err != nil || !isSocket {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return ErrControlPathTaken // what isn't a socket isn't ours to remove
	}
	if alive(path) {
		return ErrControlPathTaken
	}
	aside := temporaryBeside(path)
	if err := os.Rename(path, aside); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return listenError(path, "cannot bind to path "+path, err)
	}
	defer os.Remove(aside)
	if alive(aside) {
		// When yet another has come meanwhile, the one moved aside goes on without a name.
		_ = os.Link(aside, path)
		return ErrControlPathTaken
	}
	return nil
}

func socketAt(path string) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	return info.Mode().Type() == os.ModeSocket, nil
}

// alive reports whether somebody listens. Only a refusal says no: a full queue is a sign of life.
func alive(path string) bool {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		c.Close()
		return true
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT)
}

// Stopped is closed when the socket has no name any more: no new client can come.
func (l *Listener) Stopped() <-chan struct{} { return l.stopped }

// Close unlinks the socket and stops listening. Clients that wait to be accepted see a reset.
func (l *Listener) Close() error {
	l.unlink()
	if err := l.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// unlink removes the name, if it is still ours: while the socket is open no other file can have its
// number.
func (l *Listener) unlink() {
	l.unlinkOnce.Do(func() {
		if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.file) {
			_ = os.Remove(l.path) // a folder that went away meanwhile took it along
		}
		close(l.stopped)
	})
}

// stop unlinks the socket, so that nobody new can come, and wakes accept.
func (l *Listener) stop() {
	l.unlink()
	_ = l.listener.SetDeadline(time.Unix(1, 0)) // fails only when the listener is closed
}

// accept returns the next client, or os.ErrDeadlineExceeded after stop.
func (l *Listener) accept() (*net.UnixConn, error) { return l.listener.AcceptUnix() }

// waiting returns a client that has connected and was not accepted yet, nil when there is none.
// Go's accept would not look any more once its deadline is over.
func (l *Listener) waiting() (*net.UnixConn, error) {
	raw, err := l.listener.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var acceptErr error
	if err := raw.Control(func(listener uintptr) { fd, acceptErr = acceptNow(int(listener)) }); err != nil {
		return nil, err
	}
	switch {
	case errors.Is(acceptErr, unix.EAGAIN):
		return nil, nil
	case acceptErr != nil:
		return nil, os.NewSyscallError("accept", acceptErr)
	}
	f := os.NewFile(uintptr(fd), l.path)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// checkPeer refuses another user's process: only ours and root's may use the connection.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var uid uint32
	var peerErr error
	if err := raw.Control(func(fd uintptr) { uid, peerErr = peerUID(int(fd)) }); err != nil {
		return err
	}
	if peerErr != nil {
		return fmt.Errorf("asking who the mux client is: %w", peerErr)
	}
	return peerAllowed(uid, os.Getuid())
}

// peerAllowed is the rule of checkPeer, in OpenSSH's words (channels.c, channel_post_mux_listener).
func peerAllowed(peer uint32, own int) error {
	if peer != 0 && int(peer) != own {
		return fmt.Errorf("multiplex uid mismatch: peer euid %d != uid %d", peer, own)
	}
	return nil
}
