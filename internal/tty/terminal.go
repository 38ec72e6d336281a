package tty

import (
	"errors"

	"golang.org/x/sys/unix"
)

// IsTerminal reports whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, termiosGet)
	return err == nil
}

// IsCooked reports whether fd is a terminal that gathers lines, as one isn't in raw mode.
func IsCooked(fd int) bool {
	t, err := unix.IoctlGetTermios(fd, termiosGet)
	return err == nil && t.Lflag&unix.ICANON != 0
}

// InForeground reports whether what is typed on our controlling terminal is for us: whether our process
// group is the one that ^C there interrupts.
func InForeground() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// Window is a terminal's size, in characters and in pixels.
type Window struct {
	Columns, Rows, Width, Height uint32
}

// Size returns the terminal's size, all zero where fd is none: what SSH then tells the node.
func Size(fd int) Window {
	w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return Window{}
	}
	return Window{Columns: uint32(w.Col), Rows: uint32(w.Row), Width: uint32(w.Xpixel), Height: uint32(w.Ypixel)}
}

// State is a terminal's state before MakeRaw.
type State struct {
	fd         int
	saved, raw unix.Termios
}

// MakeRaw passes every byte on as it is typed: no echo, no line editing, no signals, no translation
// of either direction (sshtty.c, enter_raw_mode). The caller restores the state in the frame that
// called, on every path.
func MakeRaw(fd int) (*State, error) {
	saved, err := unix.IoctlGetTermios(fd, termiosGet)
	if err != nil {
		return nil, err
	}
	raw := *saved
	raw.Iflag |= unix.IGNPAR
	raw.Iflag &^= unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON | unix.IXANY | unix.IXOFF | upperCaseInput
	raw.Lflag &^= unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHONL | unix.IEXTEN
	raw.Oflag &^= unix.OPOST
	raw.Cc[unix.VMIN] = 1
	raw.Cc[unix.VTIME] = 0
	if err := setTermios(fd, termiosSetDrain, &raw); err != nil {
		return nil, err
	}
	return &State{fd: fd, saved: *saved, raw: raw}, nil
}

// Again puts the terminal back into raw mode, after another program has had it.
func (s *State) Again() error { return setTermios(s.fd, termiosSetDrain, &s.raw) }

// Restore brings the terminal back; it may be called again, and on nil.
func (s *State) Restore() error {
	if s == nil {
		return nil
	}
	return setTermios(s.fd, termiosSetDrain, &s.saved)
}

// setTermios retries when a signal interrupts the wait for output to drain.
func setTermios(fd int, request uint, t *unix.Termios) error {
	for {
		err := unix.IoctlSetTermios(fd, request, t)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
