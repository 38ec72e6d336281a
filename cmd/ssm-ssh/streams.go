package main

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"ssm-ssh/internal/fdpass"
)

// streams are the caller's descriptors as a session in this process reads and writes them.
type streams struct {
	poller       *fdpass.Poller
	in, out, err *fdpass.Stream
}

// openStreams takes copies of the caller's descriptors. The session closes its copy of stdout when
// the node has sent EOF, so that a reader sees the end before we exit, as with ssh; our own number 1
// must then be no second copy. Stdin and stderr stay with us too: for the terminal's mode, and for
// what we have to say.
func openStreams(std stdio) (_ *streams, err error) {
	poller, err := fdpass.NewPoller()
	if err != nil {
		return nil, err
	}
	s := &streams{poller: poller}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, end := range []struct {
		fd int
		to **fdpass.Stream
	}{{std.in, &s.in}, {std.out, &s.out}, {std.err, &s.err}} {
		fd, err := unix.FcntlInt(uintptr(end.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, os.NewSyscallError("fcntl", err)
		}
		if *end.to, err = fdpass.NewStream(poller, fd); err != nil {
			return nil, err
		}
	}
	return s, putNull(std.out)
}

// putNull puts /dev/null in the place of stdin or stdout, so that its number is not taken by another file.
func putNull(fd int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return os.NewSyscallError("dup2", dup2(int(null.Fd()), fd))
}

// close gives the copies back; streams that the session has closed already are no error.
func (s *streams) close() error {
	var errs []error
	for _, stream := range []*fdpass.Stream{s.in, s.out, s.err} {
		if stream != nil {
			errs = append(errs, ignoreClosed(stream.Close()))
		}
	}
	return errors.Join(append(errs, s.poller.Close())...)
}

// ignoreClosed drops the error of closing what is closed.
func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
