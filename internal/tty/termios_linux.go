package tty

import "golang.org/x/sys/unix"

// The requests that read and set a terminal's state (ioctl_tty(2)): drain waits for output, flush
// drops unread input besides.
const (
	termiosGet      = unix.TCGETS
	termiosSetDrain = unix.TCSETSW
	termiosSetFlush = unix.TCSETSF

	// posixVdisable is _POSIX_VDISABLE: no character.
	posixVdisable = 0

	// upperCaseInput is IUCLC, which raw mode clears where it exists.
	upperCaseInput = unix.IUCLC
)

// platformChars and platformFlags are the modes that not every system has.
var (
	platformChars = []charMode{{18, unix.VDISCARD}}
	platformFlags = []flagMode{
		{37, inputFlag, unix.IUCLC}, {52, localFlag, unix.XCASE}, {71, outputFlag, unix.OLCUC},
	}
)

// speeds returns input and output speed in baud. Linux keeps a code among the control flags.
func speeds(t *unix.Termios) (input, output uint32) {
	baud := baudRates[t.Cflag&unix.CBAUD]
	return baud, baud
}

var baudRates = map[uint32]uint32{
	unix.B50: 50, unix.B75: 75, unix.B110: 110, unix.B134: 134, unix.B150: 150, unix.B200: 200,
	unix.B300: 300, unix.B600: 600, unix.B1200: 1200, unix.B1800: 1800, unix.B2400: 2400,
	unix.B4800: 4800, unix.B9600: 9600, unix.B19200: 19200, unix.B38400: 38400, unix.B57600: 57600,
	unix.B115200: 115200, unix.B230400: 230400,
}
