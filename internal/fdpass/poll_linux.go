package fdpass

import "golang.org/x/sys/unix"

func wakePipe() (fds [2]int, err error) {
	err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	return fds, err
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
