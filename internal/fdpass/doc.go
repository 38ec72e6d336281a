// Package fdpass lends open files between processes over a Unix socket and reads and writes the
// borrowed ones without changing anything that their owner would notice.
//
// Send and Receiver pass descriptors the way OpenSSH's monitor_fdpass.c does: each with one data
// byte of its own. A Receiver is also the only safe way to read such a connection, since a plain read
// that reaches a descriptor's byte destroys the descriptor.
//
// A Stream is a received descriptor as io.Reader, io.Writer and io.Closer. The open file description
// behind it is shared with the process that lent it, so O_NONBLOCK stays as it is, set or not. A
// Stream instead asks for readiness first, and where the system can say "don't wait" with one call
// (sockets: MSG_DONTWAIT; pipes on Linux: RWF_NOWAIT) it does:
//
//	Stream.Read ── attempt ──> EAGAIN ──> Poller.wait ──> attempt …
//	Stream.Close ── wakes every waiting call, and closes the descriptor when the last has left
//
// Where there is no such call (terminals, other devices; pipes on darwin) an attempt follows a
// poll that said ready, and a write is short enough for the room that poll promises. A rival reader
// that takes the input in between, or a terminal that stops in the middle of a write, then holds
// that one call, which Close can't end: it returns when the terminal moves again or hangs up. No
// other Stream waits for it.
//
// Goroutines: one a Poller, begun by NewPoller, ended and waited for by Poller.Close. It sleeps in
// poll(2) and owns nothing but the list of descriptors it is asking about.
//
// Sources: poll(2), unix(7), recvmsg(2), preadv2(2); OpenSSH's monitor_fdpass.c and mux.c; for
// darwin OpenSSH's configure.ac (BROKEN_POLL: poll(2) refuses devices there, select(2) doesn't).
package fdpass
