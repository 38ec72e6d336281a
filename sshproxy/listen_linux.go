package sshproxy

import "golang.org/x/sys/unix"

// sunPathBytes is the size of sun_path, its final NUL included (unix(7)).
const sunPathBytes = 108

func streamSocket() (int, error) {
	return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

// acceptNow accepts a waiting client or says EAGAIN: the listener is non-blocking, as Go made it.
func acceptNow(listener int) (int, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	return fd, err
}

func peerUID(fd int) (uint32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
