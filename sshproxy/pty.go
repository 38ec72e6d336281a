package sshproxy

import (
	"maps"
	"slices"

	"golang.org/x/crypto/ssh"
)

// Window is the size of a terminal, in characters and in pixels.
type Window struct {
	Columns, Rows, Width, Height uint32
}

// ptyRequest is the body of "pty-req" (RFC 4254 section 6.2).
type ptyRequest struct {
	Term                         string
	Columns, Rows, Width, Height uint32
	Modes                        string
}

// windowChange is the body of "window-change" (RFC 4254 section 6.7).
type windowChange struct {
	Columns, Rows, Width, Height uint32
}

// ttyOpEnd ends the encoded terminal modes (RFC 4254 section 8).
const ttyOpEnd = 0

// encodeModes puts the speeds first, as OpenSSH does (ttymodes.c, ssh_tty_make_modes), then the
// modes by their number.
func encodeModes(modes ssh.TerminalModes) string {
	var out []byte
	put := func(opcode uint8) {
		v := modes[opcode]
		out = append(out, opcode, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	speeds := []uint8{ssh.TTY_OP_OSPEED, ssh.TTY_OP_ISPEED}
	for _, opcode := range speeds {
		if _, ok := modes[opcode]; ok {
			put(opcode)
		}
	}
	for _, opcode := range slices.Sorted(maps.Keys(modes)) {
		if opcode != ttyOpEnd && !slices.Contains(speeds, opcode) {
			put(opcode)
		}
	}
	return string(append(out, ttyOpEnd))
}

// requestPTY asks for a terminal. The first one on a connection waits for the answer and so learns
// whether the node grants terminals; later ones travel in one flight with the command.
func (s *Session) requestPTY(req *SessionRequest) error {
	w := req.Window
	body := ssh.Marshal(ptyRequest{req.Term, w.Columns, w.Rows, w.Width, w.Height, encodeModes(req.Modes)})
	wait := !s.client.ptyGranted.Load()
	granted, err := s.ch.SendRequest("pty-req", wait, body)
	switch {
	case err != nil:
		return err
	case !wait:
		return nil
	case granted:
		s.client.ptyGranted.Store(true)
		return nil
	case req.TTYRequired:
		return &RequestRefusedError{Request: "pty-req"}
	}
	s.ttyRefused.Store(true)
	return nil
}

// WindowChange tells the remote terminal its new size. After the channel's end it does nothing.
func (s *Session) WindowChange(w Window) {
	_, _ = s.ch.SendRequest("window-change", false, ssh.Marshal(windowChange(w)))
}
