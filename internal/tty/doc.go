// Package tty is the local terminal: raw mode, its size and modes as SSH tells them to a node, and
// questions to the user, on the terminal or through an askpass program.
//
// It works on any descriptor, since a control master reads the terminal of a client that has passed
// its own. It knows nothing of SSH but RFC 4254's numbers for terminal modes.
//
//	state, err := tty.MakeRaw(fd)
//	if err != nil { … }
//	defer state.Restore()
//
// Goroutines: none that outlive a call. A question waits in the caller's goroutine; the end of its
// context and the signals that would kill the program in mid-question wake it through a pipe, for
// which one goroutine runs and is waited for, so that the terminal's echo is always restored.
//
// Sources: RFC 4254 section 8; of OpenSSH sshtty.c (raw mode), ttymodes.c (modes), readpass.c
// (which way a question goes) and openbsd-compat/readpassphrase.c (how it is put).
package tty
