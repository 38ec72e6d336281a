package sshproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The mux protocol of OpenSSH's PROTOCOL.mux, version 4. This file is its codec: bytes in, values
// out, no I/O. A frame is what follows the length word.

const (
	muxVersion = 4 // PROTOCOL.mux section 1

	// muxFrameLimit is the largest frame a master takes (mux.c, mux_master_read_cb).
	muxFrameLimit = 256 << 10

	// muxEnvLimit is how many variables a session may bring; the rest is ignored (mux.c, MUX_MAX_ENV_VARS).
	muxEnvLimit = 4096

	// muxNoEscape in place of an escape character (mux.c: options.escape_char of SSH_ESCAPECHAR_NONE).
	muxNoEscape = 0xffffffff

	// muxUnixSocket in place of a port says that the host is a socket's path (channels.h, PORT_STREAMLOCAL).
	muxUnixSocket = 0xfffffffe
)

// muxKind is a message's number.
type muxKind uint32

// mux.c, "mux protocol".
const (
	muxHello         muxKind = 0x00000001
	muxNewSession    muxKind = 0x10000002
	muxAliveCheck    muxKind = 0x10000004
	muxTerminate     muxKind = 0x10000005
	muxOpenForward   muxKind = 0x10000006
	muxCloseForward  muxKind = 0x10000007
	muxNewStdio      muxKind = 0x10000008
	muxStopListening muxKind = 0x10000009
	muxProxy         muxKind = 0x1000000f
	muxInfoRequest   muxKind = 0x20000001

	muxOK            muxKind = 0x80000001
	muxDenied        muxKind = 0x80000002
	muxFailure       muxKind = 0x80000003
	muxExit          muxKind = 0x80000004
	muxAlive         muxKind = 0x80000005
	muxSessionOpened muxKind = 0x80000006
	muxRemotePort    muxKind = 0x80000007
	muxTTYFail       muxKind = 0x80000008
	muxProxyOK       muxKind = 0x8000000f
	muxInfoReply     muxKind = 0x90000001
)

// muxEnvironment is ours alone: it is sent after HELLO to a master that has offered to take it, and
// has no answer. Its number spells "SSM", far from those of PROTOCOL.mux.
const muxEnvironment muxKind = 0x53534d01

// muxSignal is ours, too: a signal for the session's command, to a master that has offered to pass it on.
// It has no answer.
const muxSignal muxKind = 0x53534d02

// Kinds of forward (mux.c, MUX_FWD_LOCAL and so on).
const (
	muxForwardLocal   = 1
	muxForwardRemote  = 2
	muxForwardDynamic = 3
)

// muxMessage is one message of either direction.
type muxMessage interface {
	appendFrame(b []byte) []byte
}

// Extension is a named value in a HELLO. An unknown name is skipped by whoever receives it.
type Extension struct{ Name, Value string }

// timeoutExtension is the pair in a client's HELLO that holds its ConnectTimeout.
const timeoutExtension = "connect-timeout@ssm-ssh"

// ConnectTimeoutExtension tells a master how long its client wants to wait for a lost link; 0 is
// without limit.
func ConnectTimeoutExtension(d time.Duration) Extension {
	return Extension{timeoutExtension, d.String()}
}

// environmentExtension is offered in the HELLO of a master that takes an environmentMessage.
const environmentExtension = "environment@ssm-ssh"

// signalExtension is offered in the HELLO of a master that takes a signalMessage.
const signalExtension = "signal@ssm-ssh"

// helloMessage is the only message without a request id.
type helloMessage struct {
	Version    uint32
	Extensions []Extension
}

// plainMessage has a kind and an id, which is the request's or, for muxTTYFail, the session's. A
// request of an unknown kind is one too.
type plainMessage struct {
	Kind muxKind
	ID   uint32
}

// numberMessage adds a number: the exit status, the master's pid, the session id or the port.
type numberMessage struct {
	Kind       muxKind
	ID, Number uint32
}

// refusalMessage is muxDenied or muxFailure.
type refusalMessage struct {
	Kind   muxKind
	ID     uint32
	Reason string
}

// newSessionMessage is muxNewSession; three descriptors follow it.
type newSessionMessage struct {
	ID                         uint32
	TTY, X11, Agent, Subsystem bool
	Escape                     uint32
	Term, Command              string
	Env                        []string // NAME=value
}

// forwardMessage is muxOpenForward or muxCloseForward.
type forwardMessage struct {
	Kind        muxKind
	ID          uint32
	Forward     uint32 // muxForwardLocal and so on
	ListenHost  string
	ListenPort  uint32
	ConnectHost string
	ConnectPort uint32
}

// stdioMessage is muxNewStdio; two descriptors follow it.
type stdioMessage struct {
	ID   uint32
	Host string
	Port uint32
}

// environmentMessage is muxEnvironment: variables of the client's environment, NAME=value.
type environmentMessage struct {
	Env []string
}

// signalMessage is muxSignal: a signal's name without SIG.
type signalMessage struct {
	Name string
}

// infoRequestMessage is muxInfoRequest of OpenSSH 10's "info" extension.
type infoRequestMessage struct {
	ID   uint32
	What string
}

// infoReplyMessage is muxInfoReply.
type infoReplyMessage struct {
	ID, Status uint32
	Text       string
}

// errMalformed says that a frame is not what its kind wants; the connection is then of no more use.
var errMalformed = errors.New("malformed mux message")

// decodeRequest reads a frame that a client has sent.
func decodeRequest(frame []byte) (muxMessage, error) {
	r := muxReader{rest: frame}
	var m muxMessage
	switch kind := muxKind(r.number()); kind {
	case muxHello:
		m = r.hello()
	case muxNewSession:
		m = r.newSession()
	case muxOpenForward, muxCloseForward:
		m = &forwardMessage{Kind: kind, ID: r.number(), Forward: r.number(), ListenHost: r.text(), ListenPort: r.number(),
			ConnectHost: r.text(), ConnectPort: r.number()}
	case muxNewStdio:
		id, _ := r.number(), r.text() // the text is reserved
		m = &stdioMessage{ID: id, Host: r.text(), Port: r.number()}
	case muxEnvironment:
		m = &environmentMessage{Env: r.environment()}
	case muxSignal:
		m = &signalMessage{Name: r.text()}
	case muxInfoRequest:
		m = &infoRequestMessage{ID: r.number(), What: r.text()}
	default:
		m = &plainMessage{Kind: kind, ID: r.number()}
	}
	return r.done(m)
}

// decodeReply reads a frame that a master has sent.
func decodeReply(frame []byte) (muxMessage, error) {
	r := muxReader{rest: frame}
	var m muxMessage
	switch kind := muxKind(r.number()); kind {
	case muxHello:
		m = r.hello()
	case muxDenied, muxFailure:
		m = &refusalMessage{Kind: kind, ID: r.number(), Reason: r.text()}
	case muxExit, muxAlive, muxSessionOpened, muxRemotePort:
		m = &numberMessage{Kind: kind, ID: r.number(), Number: r.number()}
	case muxInfoReply:
		m = &infoReplyMessage{ID: r.number(), Status: r.number(), Text: r.text()}
	default:
		m = &plainMessage{Kind: kind, ID: r.number()}
	}
	return r.done(m)
}

// muxReader takes a frame apart; after the first thing that is missing it yields zeroes.
type muxReader struct {
	rest []byte
	bad  bool
}

// done returns m unless something was missing. What follows is ignored, as OpenSSH does.
func (r *muxReader) done(m muxMessage) (muxMessage, error) {
	if r.bad {
		return nil, errMalformed
	}
	return m, nil
}

func (r *muxReader) number() uint32 {
	if len(r.rest) < 4 {
		r.bad, r.rest = true, nil
		return 0
	}
	v := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	return v
}

// flag is a bool on this wire: a whole word.
func (r *muxReader) flag() bool { return r.number() != 0 }

// text is a string without NUL bytes (sshbuf_get_cstring).
func (r *muxReader) text() string {
	size := r.number()
	if uint64(size) > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	s := string(r.rest[:size])
	r.rest = r.rest[size:]
	if strings.IndexByte(s, 0) >= 0 {
		r.bad = true
	}
	return s
}

func (r *muxReader) hello() *helloMessage {
	m := &helloMessage{Version: r.number()}
	for len(r.rest) > 0 {
		m.Extensions = append(m.Extensions, Extension{Name: r.text(), Value: r.text()})
	}
	return m
}

func (r *muxReader) newSession() *newSessionMessage {
	m := &newSessionMessage{ID: r.number()}
	_ = r.text() // reserved
	m.TTY, m.X11, m.Agent, m.Subsystem = r.flag(), r.flag(), r.flag(), r.flag()
	m.Escape = r.number()
	m.Term, m.Command = r.text(), r.text()
	m.Env = r.environment()
	return m
}

// environment is the strings up to the frame's end; those beyond the limit are dropped.
func (r *muxReader) environment() []string {
	var env []string
	for len(r.rest) > 0 {
		if v := r.text(); len(env) < muxEnvLimit {
			env = append(env, v)
		}
	}
	return env
}

func appendNumbers(b []byte, numbers ...uint32) []byte {
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(appendNumbers(b, uint32(len(s))), s...)
}

func appendFlags(b []byte, flags ...bool) []byte {
	for _, f := range flags {
		var n uint32
		if f {
			n = 1
		}
		b = appendNumbers(b, n)
	}
	return b
}

func (m *helloMessage) appendFrame(b []byte) []byte {
	b = appendNumbers(b, uint32(muxHello), m.Version)
	for _, e := range m.Extensions {
		b = appendText(appendText(b, e.Name), e.Value)
	}
	return b
}

func (m *plainMessage) appendFrame(b []byte) []byte {
	return appendNumbers(b, uint32(m.Kind), m.ID)
}

func (m *numberMessage) appendFrame(b []byte) []byte {
	return appendNumbers(b, uint32(m.Kind), m.ID, m.Number)
}

func (m *refusalMessage) appendFrame(b []byte) []byte {
	return appendText(appendNumbers(b, uint32(m.Kind), m.ID), m.Reason)
}

func (m *newSessionMessage) appendFrame(b []byte) []byte {
	b = appendText(appendNumbers(b, uint32(muxNewSession), m.ID), "")
	b = appendFlags(b, m.TTY, m.X11, m.Agent, m.Subsystem)
	b = appendText(appendText(appendNumbers(b, m.Escape), m.Term), m.Command)
	for _, v := range m.Env {
		b = appendText(b, v)
	}
	return b
}

func (m *forwardMessage) appendFrame(b []byte) []byte {
	b = appendNumbers(b, uint32(m.Kind), m.ID, m.Forward)
	b = appendNumbers(appendText(b, m.ListenHost), m.ListenPort)
	return appendNumbers(appendText(b, m.ConnectHost), m.ConnectPort)
}

func (m *stdioMessage) appendFrame(b []byte) []byte {
	b = appendText(appendNumbers(b, uint32(muxNewStdio), m.ID), "")
	return appendNumbers(appendText(b, m.Host), m.Port)
}

func (m *environmentMessage) appendFrame(b []byte) []byte {
	b = appendNumbers(b, uint32(muxEnvironment))
	for _, v := range m.Env {
		b = appendText(b, v)
	}
	return b
}

func (m *signalMessage) appendFrame(b []byte) []byte {
	return appendText(appendNumbers(b, uint32(muxSignal)), m.Name)
}

func (m *infoRequestMessage) appendFrame(b []byte) []byte {
	return appendText(appendNumbers(b, uint32(muxInfoRequest), m.ID), m.What)
}

func (m *infoReplyMessage) appendFrame(b []byte) []byte {
	return appendText(appendNumbers(b, uint32(muxInfoReply), m.ID, m.Status), m.Text)
}

// encodeMux returns the message as it goes over the wire: length and frame.
func encodeMux(m muxMessage) ([]byte, error) {
	b := m.appendFrame(make([]byte, 4, 64))
	size := len(b) - 4
	if size > muxFrameLimit {
		return nil, fmt.Errorf("mux message of %d bytes is over the limit of %d", size, muxFrameLimit)
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	return b, nil
}
