package fdpass

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// wake ends a sleeping poll: a descriptor that is readable from raise to clear. Here it is a kqueue(2) with one
// event of the user's, one descriptor where a pipe has two; select(2) takes it (xnu: bsd/kern/kern_event.c,
// kqueue_select).
type wake int

// wakeEvent names the only event of a wake's queue.
const wakeEvent = 1

func newWake() (wake, error) {
	syscall.ForkLock.RLock()
	fd, err := unix.Kqueue()
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return -1, err
	}
	w := wake(fd)
	if err := w.change(unix.EV_ADD|unix.EV_CLEAR, 0); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return w, nil
}

func (w wake) change(flags uint16, fflags uint32) error {
	event := unix.Kevent_t{Ident: wakeEvent, Filter: unix.EVFILT_USER, Flags: flags, Fflags: fflags}
	_, err := unix.Kevent(int(w), []unix.Kevent_t{event}, nil, nil)
	return err
}

func (w wake) raise() { _ = w.change(0, unix.NOTE_TRIGGER) } // can't fail: the event is there

func (w wake) clear() {
	var events [1]unix.Kevent_t
	_, _ = unix.Kevent(int(w), nil, events[:], new(unix.Timespec)) // taking it ends it: EV_CLEAR
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
