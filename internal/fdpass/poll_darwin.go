package fdpass

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func wakePipe() (fds [2]int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(fds[:]); err != nil {
		return fds, err
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			_ = unix.Close(fds[0])
			_ = unix.Close(fds[1])
			return fds, err
		}
	}
	return fds, nil
}

// poll is select(2) in poll(2)'s clothes, since poll refuses terminals and other devices here.
// Descriptors beyond select's reach count as ready; timeout is 0 or -1.
func poll(fds []unix.PollFd, timeout int) (int, error) {
	var reads, writes unix.FdSet
	highest, beyond := -1, 0
	for i := range fds {
		f := &fds[i]
		f.Revents = 0
		if f.Fd >= unix.FD_SETSIZE {
			f.Revents = f.Events
			beyond++
			continue
		}
		if f.Events&unix.POLLIN != 0 {
			reads.Set(int(f.Fd))
		}
		if f.Events&unix.POLLOUT != 0 {
			writes.Set(int(f.Fd))
		}
		highest = max(highest, int(f.Fd))
	}
	var limit *unix.Timeval
	if timeout == 0 || beyond > 0 {
		limit = &unix.Timeval{}
	}
	if _, err := unix.Select(highest+1, &reads, &writes, nil, limit); err != nil {
		return 0, err
	}
	n := beyond
	for i := range fds {
		f := &fds[i]
		if f.Fd >= unix.FD_SETSIZE {
			continue
		}
		if f.Events&unix.POLLIN != 0 && reads.IsSet(int(f.Fd)) {
			f.Revents |= unix.POLLIN
		}
		if f.Events&unix.POLLOUT != 0 && writes.IsSet(int(f.Fd)) {
			f.Revents |= unix.POLLOUT
		}
		if f.Revents != 0 {
			n++
		}
	}
	return n, nil
}

// sendFlags keep a send to a socket from waiting; there is no MSG_NOSIGNAL here.
const sendFlags = unix.MSG_DONTWAIT

// pipeBuf is PIPE_BUF: a pipe that select calls writable takes that much at once.
const pipeBuf = 512

// readNoWait and writeNoWait have no counterpart here.
func readNoWait(int, []byte) (int, error)  { return 0, unix.EOPNOTSUPP }
func writeNoWait(int, []byte) (int, error) { return 0, unix.EOPNOTSUPP }
