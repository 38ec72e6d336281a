package fdpass

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// controlRoom is how many descriptors one message may bring. OpenSSH sends one; a relay that
	// joins messages never more than the three of a session.
	controlRoom = 16

	// queueLimit is how many received descriptors wait to be taken; what comes beyond is closed.
	queueLimit = 8
)

// ErrNoDescriptor says that a descriptor's byte came without its descriptor.
var ErrNoDescriptor = errors.New("fdpass: byte came without a descriptor")

// Send passes files in order, each in a message of its own with one byte (monitor_fdpass.c,
// mm_send_fd). The caller keeps its own copies, which are not touched: not even their blocking mode,
// as os.File.Fd would.
func Send(c *net.UnixConn, files ...*os.File) error {
	for _, f := range files {
		if err := sendOne(c, f); err != nil {
			return fmt.Errorf("passing descriptor: %w", err)
		}
	}
	return nil
}

func sendOne(c *net.UnixConn, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		_, _, sendErr = c.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil)
	})
	return errors.Join(err, sendErr)
}

// Receiver reads a connection that may carry descriptors. Bytes must be asked for exactly (with
// io.ReadFull): what is read beyond a message is lost to whoever reads next. One goroutine uses a
// Receiver at a time; Close may come from any once that one has ended.
type Receiver struct {
	conn    *net.UnixConn
	control [controlBytes]byte
	queue   []int // received and not yet taken, oldest first
}

// controlBytes is unix.CmsgSpace(4*controlRoom), which isn't a constant expression: header, rounded
// up to 16 bytes, and four bytes a descriptor.
const controlBytes = 16 + 4*controlRoom

// NewReceiver returns a Receiver over c, which stays the caller's to close.
func NewReceiver(c *net.UnixConn) *Receiver { return &Receiver{conn: c} }

// Read reads bytes and keeps the descriptors that come with them. They are close-on-exec from the
// moment of receipt (MSG_CMSG_CLOEXEC, or under the fork lock where the system lacks it).
func (r *Receiver) Read(p []byte) (int, error) {
	n, controlLen, _, _, err := r.conn.ReadMsgUnix(p, r.control[:])
	if controlLen > 0 {
		r.keep(r.control[:controlLen])
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF // which net wraps for messages
	}
	return n, err
}

// keep queues the descriptors of one message's control data and closes what is beyond the limit.
func (r *Receiver) keep(control []byte) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return // nothing was received that could be named, let alone closed
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // other control data carries no descriptors
		}
		for _, fd := range fds {
			if len(r.queue) < queueLimit {
				r.queue = append(r.queue, fd)
			} else {
				_ = unix.Close(fd) // nobody asked for it
			}
		}
	}
}

// NextFD reads one descriptor's byte and returns the descriptor, which is then the caller's to
// close. A relay may have delivered it earlier, with bytes before its own. The error is
// ErrNoDescriptor when the byte came alone.
func (r *Receiver) NextFD() (int, error) {
	var b [1]byte
	if _, err := r.Read(b[:]); err != nil {
		return -1, err
	}
	if len(r.queue) == 0 {
		return -1, ErrNoDescriptor
	}
	fd := r.queue[0]
	r.queue = r.queue[1:]
	return fd, nil
}

// Close closes the descriptors that nobody took; the connection stays as it is.
func (r *Receiver) Close() {
	for _, fd := range r.queue {
		_ = unix.Close(fd) // an error has no remedy
	}
	r.queue = nil
}
