package sshproxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// Reasons that a master gives (mux.c). Clients print them after words of their own.
const (
	reasonDenied          = "Permission denied"
	reasonUnsupported     = "unsupported request"
	reasonNoDescriptors   = "did not receive file descriptors"
	reasonSecondSession   = "Multiple sessions not supported"
	reasonRefusedByPeer   = "Session open refused by peer"
	reasonForwardFailed   = "Port forwarding failed"
	reasonForwardInvalid  = "Invalid forwarding request"
	reasonForwardNotThere = "port not forwarded"
)

// Questions that a master with ControlMaster ask puts to its user (mux.c, ask_permission).
const (
	questionSession   = "Allow shared connection to %s? "
	questionStdio     = "Allow forward to %s:%d? "
	questionForward   = "Open %s on %s?"
	questionProxy     = "Allow multiplex proxy connection?"
	questionTerminate = "Terminate shared connection to %s? "
	questionStop      = "Disable further multiplexing on shared connection to %s? "
)

// textHelloFailed is what ssh says when a socket is there but no master behind it answers. Ansible
// retries on what precedes it at debug level.
const textHelloFailed = "muxclient: master hello exchange failed"

// textNoHello says what came in HELLO's place.
func textNoHello(frame []byte) string {
	r := muxReader{rest: frame}
	return fmt.Sprintf("expected HELLO (%d) got %d", muxHello, r.number())
}

// textNoInfo is what ssh 10 says of a master that doesn't offer what -O conninfo and channels ask for.
const textNoInfo = "mux server does not support info request"

// ErrMasterGone says that the control master ended before it had opened anything for this request:
// nothing was run, and the caller may start over.
var ErrMasterGone = errors.New("sshproxy: the control master has gone")

// MuxRefusedError is a master's refusal, the cause inside the TextError that a request returns.
type MuxRefusedError struct {
	Denied bool // its user said no
	Reason string
}

func (e *MuxRefusedError) Error() string { return e.Reason }

// connectError has the words of mux.c, muxclient.
func connectError(path string, err error) error {
	return &TextError{Text: fmt.Sprintf("Control socket connect(%.100s): %s", path, strerror(err)), Err: err}
}

// helloError wraps the end of the exchange of HELLOs. text comes first where OpenSSH has one.
func helloError(text string, err error) error {
	if text != "" {
		text += "\n"
	}
	return &TextError{Text: text + textHelloFailed, Err: goneError(err)}
}

// goneError marks the errors by which a vanished master shows.
func goneError(err error) error {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed} {
		if errors.Is(err, end) {
			return fmt.Errorf("%w: %w", ErrMasterGone, err)
		}
	}
	return err
}

// requestWords are a request's phrases in the client's errors.
type requestWords struct {
	denied string // before the reason of a denial
	failed string // before the reason of a failure
	read   string // the whole text when no reply came
}

// mux.c: the function named is the one that prints.
var (
	wordsSession = requestWords{
		denied: "Master refused session request: ",
		failed: "mux_client_request_session: session request failed: ",
		read:   "mux_client_request_session: read from master failed: Broken pipe",
	}
	wordsAlive = requestWords{
		denied: "mux_client_request_alive: master returned error: ",
		failed: "mux_client_request_alive: master returned error: ",
		read:   "mux_client_request_session: master alive request failed",
	}
	wordsTerminate = requestWords{
		denied: "Master refused termination request: ",
		failed: "mux_client_request_terminate: termination request failed: ",
		read:   "mux_client_request_terminate: read from master failed",
	}
	wordsStop = requestWords{
		denied: "Master refused stop listening request: ",
		failed: "mux_client_request_stop_listening: stop listening request failed: ",
		read:   "mux_client_request_stop_listening: read from master failed: Broken pipe",
	}
	wordsForward = requestWords{
		denied: "Master refused forwarding request: ",
		failed: "mux_client_forward: forwarding request failed: ",
		read:   "mux_client_forward: read from master failed: Broken pipe",
	}
	wordsStdio = requestWords{
		denied: "Master refused stdio forwarding request: ",
		failed: "Stdio forwarding request failed: ",
		read:   "mux_client_request_stdio_fwd: read from master failed: Broken pipe",
	}
	wordsInfo = requestWords{
		denied: "mux_client_request_info: master returned error: ",
		failed: "mux_client_request_info: master returned error: ",
		read:   "muxclient: info request failed",
	}
	wordsProxy = requestWords{
		denied: "mux_client_proxy: master returned error: ",
		failed: "mux_client_proxy: master returned error: ",
		read:   "mux_client_proxy: read from master failed: Broken pipe",
	}
)

// refused puts a refusal in the client's words.
func (w requestWords) refused(m *refusalMessage) error {
	e := &MuxRefusedError{Denied: m.Kind == muxDenied, Reason: printable(m.Reason)}
	text := w.failed
	if e.Denied {
		text = w.denied
	}
	return &TextError{Text: text + e.Reason, Err: e}
}
