package tty

import "golang.org/x/sys/unix"

// Opcodes that are numbers, not characters or flags (RFC 4254 section 8).
const (
	opInputSpeed  = 128
	opOutputSpeed = 129
)

// vdisable marks a character that is switched off on the wire.
const vdisable = 255

// charMode is an opcode and the index of its control character.
type charMode struct {
	opcode uint8
	index  int
}

// flagMode is an opcode and its bit in one of the four flag words.
type flagMode struct {
	opcode uint8
	word   func(*unix.Termios) uint64
	bit    uint64
}

func inputFlag(t *unix.Termios) uint64   { return uint64(t.Iflag) }
func outputFlag(t *unix.Termios) uint64  { return uint64(t.Oflag) }
func controlFlag(t *unix.Termios) uint64 { return uint64(t.Cflag) }
func localFlag(t *unix.Termios) uint64   { return uint64(t.Lflag) }

// commonChars and commonFlags are RFC 4254's table as far as all our systems have the mode.
var (
	commonChars = []charMode{
		{1, unix.VINTR}, {2, unix.VQUIT}, {3, unix.VERASE}, {4, unix.VKILL}, {5, unix.VEOF}, {6, unix.VEOL},
		{7, unix.VEOL2}, {8, unix.VSTART}, {9, unix.VSTOP}, {10, unix.VSUSP}, {12, unix.VREPRINT},
		{13, unix.VWERASE}, {14, unix.VLNEXT},
	}
	commonFlags = []flagMode{
		{30, inputFlag, unix.IGNPAR}, {31, inputFlag, unix.PARMRK}, {32, inputFlag, unix.INPCK},
		{33, inputFlag, unix.ISTRIP}, {34, inputFlag, unix.INLCR}, {35, inputFlag, unix.IGNCR},
		{36, inputFlag, unix.ICRNL}, {38, inputFlag, unix.IXON}, {39, inputFlag, unix.IXANY},
		{40, inputFlag, unix.IXOFF}, {41, inputFlag, unix.IMAXBEL}, {42, inputFlag, unix.IUTF8},
		{50, localFlag, unix.ISIG}, {51, localFlag, unix.ICANON}, {53, localFlag, unix.ECHO},
		{54, localFlag, unix.ECHOE}, {55, localFlag, unix.ECHOK}, {56, localFlag, unix.ECHONL},
		{57, localFlag, unix.NOFLSH}, {58, localFlag, unix.TOSTOP}, {59, localFlag, unix.IEXTEN},
		{60, localFlag, unix.ECHOCTL}, {61, localFlag, unix.ECHOKE}, {62, localFlag, unix.PENDIN},
		{70, outputFlag, unix.OPOST}, {72, outputFlag, unix.ONLCR}, {73, outputFlag, unix.OCRNL},
		{74, outputFlag, unix.ONOCR}, {75, outputFlag, unix.ONLRET},
		{90, controlFlag, unix.CS7}, {91, controlFlag, unix.CS8}, {92, controlFlag, unix.PARENB}, {93, controlFlag, unix.PARODD},
	}
)

// Modes returns the terminal's modes under their numbers of RFC 4254 section 8; nil where fd is no
// terminal, for which ssh sends none on a connection of its own.
func Modes(fd int) map[uint8]uint32 {
	t, err := unix.IoctlGetTermios(fd, termiosGet)
	if err != nil {
		return nil
	}
	return modesOf(t)
}

// NoModes has every mode off: what a control master sends for a client without a terminal (OpenSSH's
// mux.c, mux_master_process_new_session, clears the modes that it can't read).
func NoModes() map[uint8]uint32 { return modesOf(&unix.Termios{}) }

func modesOf(t *unix.Termios) map[uint8]uint32 {
	modes := make(map[uint8]uint32)
	modes[opInputSpeed], modes[opOutputSpeed] = speeds(t)
	for _, table := range [][]charMode{commonChars, platformChars} {
		for _, m := range table {
			modes[m.opcode] = charValue(t.Cc[m.index])
		}
	}
	for _, table := range [][]flagMode{commonFlags, platformFlags} {
		for _, m := range table {
			modes[m.opcode] = flagValue(m.word(t)&m.bit != 0)
		}
	}
	return modes
}

func charValue(c uint8) uint32 {
	if c == posixVdisable {
		return vdisable
	}
	return uint32(c)
}

func flagValue(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}
