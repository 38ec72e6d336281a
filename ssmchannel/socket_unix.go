//go:build unix

package ssmchannel

import "syscall"

// quietBytes is how much must have come in before the system wakes us up in a pause: far more than the
// agent sends in one.
const quietBytes = 32 << 10

// quiet sets how much a socket must hold before it counts as readable (SO_RCVLOWAT, socket(7)).
// Without it every message wakes the process although nobody is reading: the runtime's poller hears of
// each. Failing is harmless.
func quiet(socket syscall.RawConn, on bool) {
	least := 1
	if on {
		least = quietBytes
	}
	socket.Control(func(fd uintptr) { //nolint:errcheck // a closed socket wakes nobody
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, least) //nolint:errcheck // see above
	})
}
