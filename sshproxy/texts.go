package sshproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"
)

// OpenSSH's words, as Ansible, mitogen, sshpass and people's scripts read them.
const (
	textHostKeyFailed = "Host key verification failed."               // sshconnect.c, verify_host_key
	textTryAgain      = "Permission denied, please try again."        // sshconnect2.c, userauth_passwd
	textBannerTimeout = "Connection timed out during banner exchange" // kex.c, kex_exchange_identification
)

// permissionDenied is the end of authentication: methods are those the node still offers.
func permissionDenied(cfg *Config, methods []string) error {
	return &TextError{Text: fmt.Sprintf("%s@%s: Permission denied (%s).", cfg.User, cfg.Host, strings.Join(methods, ",")), Err: errAuthentication}
}

// handshakeError puts the failure of a handshake in OpenSSH's words (packet.c, sshpkt_vfatal).
func (c *Client) handshakeError(ctx context.Context, err error) error {
	var text *TextError
	if errors.As(err, &text) {
		return text
	}
	peer := c.cfg.peer()
	if c.wire.timedOut.Load() {
		return &TextError{Text: textBannerTimeout + "\nConnection to " + peer + " timed out", Err: err}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("ssh handshake: %w", context.Cause(ctx))
	}
	if t := disconnectText(peer, err); t != "" {
		return &TextError{Text: t, Err: err}
	}
	var negotiation *ssh.AlgorithmNegotiationError
	if errors.As(err, &negotiation) {
		return &TextError{Text: negotiationText(peer, negotiation), Err: err}
	}
	readErr, writeErr := c.wire.failure()
	if readErr == nil && writeErr == nil {
		return fmt.Errorf("ssh handshake: %w", err) // the peer broke the protocol
	}
	return &TextError{Text: closedText(peer, c.wire.heard.Load(), readErr), Err: err}
}

// closedText says that the connection ended before authentication did; heard tells whether the peer
// had said anything before.
func closedText(peer string, heard bool, readErr error) string {
	reset := errors.Is(readErr, syscall.ECONNRESET)
	closed := "Connection closed by " + peer
	if reset {
		closed = "Connection reset by " + peer
	}
	switch {
	case heard:
		return closed
	case reset:
		return "kex_exchange_identification: read: Connection reset by peer\n" + closed
	default:
		return "kex_exchange_identification: Connection closed by remote host\n" + closed
	}
}

// lostError puts the end of an authenticated connection in OpenSSH's words (clientloop.c,
// client_process_net_input).
func (c *Client) lostError(err error) error {
	if t := disconnectText(c.cfg.peer(), err); t != "" {
		return &TextError{Text: t, Err: err}
	}
	readErr, writeErr := c.wire.failure()
	switch {
	case readErr != nil && !errors.Is(readErr, io.EOF) && errno(readErr) != 0:
		return &TextError{Text: fmt.Sprintf("Read from remote host %s: %s", c.cfg.Host, strerror(readErr)), Err: err, Quit: true}
	case errors.Is(writeErr, syscall.EPIPE) && readErr == nil:
		return &TextError{Text: "client_loop: send disconnect: Broken pipe", Err: err}
	case readErr != nil || writeErr != nil:
		return &TextError{Text: "Connection to " + c.cfg.Host + " closed by remote host.", Err: err, Quit: true}
	default:
		return fmt.Errorf("ssh connection to %s: %w", c.cfg.Host, err) // the peer broke the protocol
	}
}

// disconnectText returns OpenSSH's two lines for a peer's SSH_MSG_DISCONNECT (RFC 4253 section
// 11.1), or "". x/crypto/ssh keeps the message's type to itself, so its text is all there is.
func disconnectText(peer string, err error) string {
	if err == nil {
		return ""
	}
	_, rest, found := strings.Cut(err.Error(), "ssh: disconnect, reason ")
	if !found {
		return ""
	}
	number, message, found := strings.Cut(rest, ": ")
	if _, err := strconv.ParseUint(number, 10, 32); err != nil || !found {
		return ""
	}
	if plain, err := strconv.Unquote(message); err == nil {
		message = plain
	}
	return fmt.Sprintf("Received disconnect from %s:%s: %s\nDisconnected from %s", peer, number, printable(message), peer)
}

// negotiationText says which algorithms did not match (packet.c, sshpkt_vfatal).
func negotiationText(peer string, e *ssh.AlgorithmNegotiationError) string {
	what := e.What
	switch {
	case strings.Contains(what, "host key"):
		what = "host key type"
	case strings.Contains(what, "key exchange"):
		what = "key exchange method"
	case strings.Contains(what, "cipher"):
		what = "cipher"
	case strings.Contains(what, "MAC"):
		what = "MAC"
	}
	return printable(fmt.Sprintf("Unable to negotiate with %s: no matching %s found. Their offer: %s",
		peer, what, strings.Join(e.RequestedAlgorithms, ",")))
}

// terminalSafe escapes in octal what could act on the user's terminal; the ends of lines and tabs stay, and
// so do characters beyond ASCII where the user's locale has them (utf8.c, vasnmprintf).
func terminalSafe(s string, multibyte bool) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == '\n' || r == '\r' || r == '\t' || r >= ' ' && r <= '~',
			r >= utf8.RuneSelf && size > 1 && multibyte && unicode.IsPrint(r):
			b.WriteString(s[:size])
		default:
			for _, c := range []byte(s[:size]) {
				fmt.Fprintf(&b, "\\%03o", c)
			}
		}
		s = s[size:]
	}
	return b.String()
}

// bannerLines splits a peer's text into printable lines.
func bannerLines(message string) []string {
	lines := strings.Split(strings.TrimRight(message, "\r\n"), "\n")
	for i, line := range lines {
		lines[i] = printable(strings.TrimRight(line, "\r"))
	}
	return lines
}

// printable escapes what could act on the user's terminal, as OpenSSH's strnvis does.
func printable(s string) string {
	clean := func(r rune) bool { return r == '\t' || unicode.IsPrint(r) }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			b.WriteRune(r)
			continue
		}
		for _, c := range []byte(string(r)) {
			fmt.Fprintf(&b, "\\%03o", c)
		}
	}
	return b.String()
}

// errno returns the system's error number inside err, or 0.
func errno(err error) syscall.Errno {
	var n syscall.Errno
	errors.As(err, &n)
	return n
}

// strerror returns the system's words as C's strerror has them: Go's begin in lower case.
func strerror(err error) string {
	s := err.Error()
	if n := errno(err); n != 0 {
		s = n.Error()
	}
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
