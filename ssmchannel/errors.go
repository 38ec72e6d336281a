package ssmchannel

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Reasons for the end of a connection. They come wrapped in what happened.
var (
	// ErrSessionGone says that the session cannot be resumed: it is terminated,
	// timed out, or was never there. A Config.Resume function wraps it to end
	// the attempts.
	ErrSessionGone = errors.New("session is gone")
	// ErrNodeSilent says that the service is reachable but the node is not: the
	// agent stays disconnected, or acknowledges nothing.
	ErrNodeSilent = errors.New("node does not answer")
	// ErrHandshakeTimeout says that the agent did not complete the handshake.
	ErrHandshakeTimeout = errors.New("no handshake from the agent in time")
	// ErrEncryption says that the agent asks for KMS encryption.
	ErrEncryption = errors.New("session asks for KMS encryption, which is not configured")
	// ErrProtocol says that the peer sends what cannot be read, again and again.
	ErrProtocol = errors.New("unreadable messages from the agent")
	// ErrLost says that the websocket was lost and could not be replaced.
	ErrLost = errors.New("data channel lost")
)

// CloseError is the end of a session by its peer, with the reason that the peer
// gave. It satisfies net.ErrClosed.
type CloseError struct {
	// Reason is the Output of the channel_closed message, for the user.
	Reason string
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return "ssmchannel: session ended by the peer"
	}
	return "ssmchannel: session ended by the peer: " + e.Reason
}

// Unwrap makes errors.Is(err, net.ErrClosed) true.
func (e *CloseError) Unwrap() error { return net.ErrClosed }

// DialError is a websocket that did not open.
type DialError struct {
	// StatusCode is the answer to the upgrade request, 0 when there was none.
	StatusCode int
	Err        error
}

func (e *DialError) Error() string {
	if e.StatusCode != 0 {
		return fmt.Sprintf("opening websocket: answer %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	}
	return "opening websocket: " + e.Err.Error()
}

func (e *DialError) Unwrap() error { return e.Err }

// refused reports whether another attempt with the same token is useless.
func (e *DialError) refused() bool {
	return e.StatusCode >= 400 && e.StatusCode < 500 && e.StatusCode != http.StatusTooManyRequests
}

// Causes for replacing the websocket; they reach the user inside ErrLost only.
var (
	errDeadPeer  = errors.New("nothing received, pings included")
	errStuck     = errors.New("websocket takes nothing any more")
	errClockJump = errors.New("clock has jumped")
)

// errTerminated ends the receive loop after channel_closed.
var errTerminated = errors.New("channel closed")

// silence is the ErrNodeSilent for a wait of d. Port names the remote port when
// it has never sent a byte: then nothing may be listening there.
func silence(what string, d time.Duration, port string) error {
	err := fmt.Errorf("%w: %s for %v", ErrNodeSilent, what, d.Round(time.Second))
	if port != "" {
		err = fmt.Errorf("%w; nothing has come from port %s", err, port)
	}
	return err
}

// lostFor is the ErrLost for a link that ended with cause. A broken websocket is
// often an io.EOF, which for our reader would mean an orderly end.
func lostFor(why string, cause error) error {
	if errors.Is(cause, io.EOF) || errors.Is(cause, net.ErrClosed) {
		return fmt.Errorf("%w: %s: %v", ErrLost, why, cause)
	}
	return fmt.Errorf("%w: %s: %w", ErrLost, why, cause)
}

// edge prefixes an error that leaves the package.
func edge(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ssmchannel: %w", err)
}
