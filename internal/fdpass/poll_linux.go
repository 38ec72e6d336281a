package fdpass

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// wake ends a sleeping poll: a descriptor that is readable from raise to clear. Here it is an eventfd(2), one
// descriptor where a pipe has two.
type wake int

func newWake() (wake, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return wake(fd), err
}

func (w wake) raise() {
	_, _ = unix.Write(int(w), binary.NativeEndian.AppendUint64(nil, 1)) // fails only at 2^64-2 raised and not cleared
}

func (w wake) clear() {
	var count [8]byte
	_, _ = unix.Read(int(w), count[:]) // EAGAIN: nothing was raised
}

// poll is poll(2); timeout is in milliseconds, -1 waits for ever.
func poll(fds []unix.PollFd, timeout int) (int, error) { return unix.Poll(fds, timeout) }

// sendFlags keep a send to a socket from waiting and from raising SIGPIPE.
const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// pipeBuf is PIPE_BUF: a pipe that poll calls writable takes that much at once (pipe(7)).
const pipeBuf = 4096

// readNoWait and writeNoWait try once on a pipe without waiting, whatever its blocking mode; offset
// -1 is "where it stands". Kernels before 5.15 or so say EOPNOTSUPP or ENOSYS for pipes.
func readNoWait(fd int, p []byte) (int, error) {
	return unix.Preadv2(fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
}

func writeNoWait(fd int, p []byte) (int, error) {
	return unix.Pwritev2(fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
}
