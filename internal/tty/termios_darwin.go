package tty

import "golang.org/x/sys/unix"

// The requests that read and set a terminal's state (tty(4)): drain waits for output, flush drops
// unread input besides.
const (
	termiosGet      = unix.TIOCGETA
	termiosSetDrain = unix.TIOCSETAW
	termiosSetFlush = unix.TIOCSETAF

	// posixVdisable is _POSIX_VDISABLE: no character.
	posixVdisable = 0xff

	// upperCaseInput is IUCLC, which this system does not have.
	upperCaseInput = 0
)

// platformChars and platformFlags are the modes that not every system has.
var (
	platformChars = []charMode{{11, unix.VDSUSP}, {17, unix.VSTATUS}, {18, unix.VDISCARD}}
	platformFlags = []flagMode{}
)

// speeds returns input and output speed in baud.
func speeds(t *unix.Termios) (input, output uint32) {
	return uint32(t.Ispeed), uint32(t.Ospeed)
}
