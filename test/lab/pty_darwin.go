package lab

import (
	"bytes"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ptyNameBytes is the length of the name that TIOCPTYGNAME writes (sys/ttycom.h).
const ptyNameBytes = 128

// openPTY returns a new pty (ptsname(3), in terms of the ioctls of sys/ttycom.h).
func openPTY() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	var name [ptyNameBytes]byte
	err = onFD(master, func(fd int) error {
		for _, request := range []struct{ code, argument uintptr }{
			{unix.TIOCPTYGRANT, 0}, {unix.TIOCPTYUNLK, 0}, {unix.TIOCPTYGNAME, uintptr(unsafe.Pointer(&name[0]))},
		} {
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request.code, request.argument); errno != 0 {
				return errno
			}
		}
		return nil
	})
	if err == nil {
		path, _, _ := bytes.Cut(name[:], []byte{0})
		slave, err = os.OpenFile(string(path), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
