package ssmchannel

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// Session is what StartSession and ResumeSession return.
type Session struct {
	ID        string
	StreamURL string
	Token     string
}

// Config says how a connection behaves. The zero value works; without Resume the
// connection ends with its first websocket.
type Config struct {
	// HTTPClient dials the websocket; nil is http.DefaultClient.
	HTTPClient *http.Client

	// Sign returns the SigV4 headers for a request to the stream URL. It is
	// called for every dial and must use the credentials of that moment. It is
	// not called for a presigned URL. Nil leaves the request unsigned.
	Sign func(ctx context.Context, streamURL string) (http.Header, error)

	// Resume calls ResumeSession with the credentials of that moment. An error
	// that wraps ErrSessionGone ends the connection, any other is followed by
	// another call. Nil means that a lost websocket ends the connection.
	Resume func(ctx context.Context, sessionID string) (Session, error)

	// End calls TerminateSession. Close calls it once, when the agent has acknowledged all that was
	// written and the flag of the end, or can't: with the websocket still open, so that nothing is cut
	// off. It must return in its own time. Nil has Close wait for the agent's end of the session.
	End func()

	// GenerateDataKey calls KMS for the data key of an encrypted session: 64 bytes
	// under the key and the encryption context given. It returns the data key, which
	// is erased after use, and the same encrypted. Nil refuses encrypted sessions;
	// Port sessions are never encrypted.
	GenerateDataKey func(ctx context.Context, keyID string, encryptionContext map[string]string) (plaintext, ciphertext []byte, err error)

	// AnswerAhead says that the session is of the kind Port and not encrypted, as those of
	// AWS-StartSSHSession are, so that the answer to the agent's handshake is known: it leaves with the
	// opening of the websocket, without the request. That saves a round trip, and where the request was
	// sent before we were there, the agent's wait until it repeats it.
	AnswerAhead bool

	// TargetID is the node as StartSession was told it; part of the encryption
	// context.
	TargetID string

	// ClientVersion is the version reported to the agent. The agent switches
	// features by it. Default 1.3.0.0; see defaultClientVersion.
	ClientVersion string

	// PayloadBytes is the largest payload sent in one message, in bytes: 1 to
	// 32648, default 1024. 1024 and 1536 are proven against AWS.
	PayloadBytes int

	// WindowBytes is the most that may be sent without acknowledgement, in bytes
	// of whole messages. The window begins at 256 KiB and grows with
	// acknowledgements up to this. Default 4 MiB, at least 16 KiB.
	WindowBytes int

	// WindowMessages is the same in messages, since one of a single byte takes the
	// memory of a full one. Default: as many full ones as WindowBytes takes; at
	// least 16.
	WindowMessages int

	// IncomingBytes is how much received data waits for Read before the
	// connection stops reading the websocket. While a Write is blocked, too, it
	// reads on, to 16 times as much. Default 1 MiB, at least 64 KiB.
	IncomingBytes int

	// PingInterval is the time between websocket pings, and within which an idle
	// connection notices that the computer has slept. Default 15 s.
	PingInterval time.Duration

	// PingTimeout is how long after a ping something must have come in, else the
	// websocket is replaced. Default 10 s.
	PingTimeout time.Duration

	// NodeSilence is how long the agent may stay disconnected from the service,
	// or leave our data without acknowledgement, while our websocket is up,
	// before the connection ends with ErrNodeSilent. Default 15 s; negative: for
	// ever.
	NodeSilence time.Duration

	// ResumeFor is how long a lost websocket is tried to be replaced; an attempt
	// that has begun by then may take half a minute more. Default 15 min; negative:
	// not at all.
	ResumeFor time.Duration

	// HandshakeTimeout bounds Dial, from the first byte to HandshakeComplete.
	// Default 20 s: the agent itself gives up after 15 s.
	HandshakeTimeout time.Duration

	// CloseTimeout bounds each of the two waits of Close: for the
	// acknowledgement of what was written, and, without End, for the agent's end
	// of the session. Default 2 s.
	CloseTimeout time.Duration

	// Logf takes a line without newline; level 0 is for information, 1 to 3 for
	// debugging. Payload bytes and tokens are never logged. Nil logs nothing.
	Logf func(level int, format string, args ...any)

	// wall returns what the wall clock shows at a moment; nil is what that says itself. For tests:
	// no public way leads to a time whose two clocks have parted.
	wall func(now time.Time) time.Time
}

const (
	// defaultClientVersion makes every agent choose its newest behaviour: above
	// 1.1.70 (multiplexing) and 1.2.331.0 (no smux keepalive), four numbers
	// (agent: session/plugins/port/port.go).
	defaultClientVersion = "1.3.0.0"

	// defaultPayloadBytes is the plugin's and the agent's (config/config.go,
	// StreamDataPayloadSize).
	defaultPayloadBytes = 1024
	// maxPayloadBytes keeps a whole message within 32 KiB, a usual frame quota.
	maxPayloadBytes = 32<<10 - agentmsg.Overhead

	defaultWindowBytes   = 4 << 20
	minWindowBytes       = 16 << 10
	minWindowMessages    = 16
	defaultIncomingBytes = 1 << 20
	minIncomingBytes     = 64 << 10

	defaultPingInterval     = 15 * time.Second
	defaultPingTimeout      = 10 * time.Second
	defaultNodeSilence      = 15 * time.Second
	defaultResumeFor        = 15 * time.Minute
	defaultHandshakeTimeout = 20 * time.Second
	defaultCloseTimeout     = 2 * time.Second
)

// validate refuses what populate cannot make sense of.
func (c *Config) validate() error {
	switch {
	case c.PayloadBytes < 0 || c.PayloadBytes > maxPayloadBytes:
		return fmt.Errorf("payload of %d bytes: must be 1 to %d", c.PayloadBytes, maxPayloadBytes)
	case c.WindowBytes != 0 && c.WindowBytes < minWindowBytes:
		return fmt.Errorf("window of %d bytes: must be at least %d", c.WindowBytes, minWindowBytes)
	case c.WindowMessages != 0 && c.WindowMessages < minWindowMessages:
		return fmt.Errorf("window of %d messages: must be at least %d", c.WindowMessages, minWindowMessages)
	case c.IncomingBytes != 0 && c.IncomingBytes < minIncomingBytes:
		return fmt.Errorf("incoming buffer of %d bytes: must be at least %d", c.IncomingBytes, minIncomingBytes)
	case c.PingInterval < 0 || c.PingTimeout < 0 || c.HandshakeTimeout < 0 || c.CloseTimeout < 0:
		return fmt.Errorf("negative time limit")
	}
	return nil
}

// populate returns a copy with every default filled in.
func (c Config) populate() Config {
	orElse(&c.HTTPClient, http.DefaultClient)
	orElse(&c.ClientVersion, defaultClientVersion)
	orElse(&c.PayloadBytes, defaultPayloadBytes)
	orElse(&c.WindowBytes, defaultWindowBytes)
	orElse(&c.WindowMessages, max(c.WindowBytes/(agentmsg.Overhead+c.PayloadBytes), minWindowMessages))
	orElse(&c.IncomingBytes, defaultIncomingBytes)
	orElse(&c.PingInterval, defaultPingInterval)
	orElse(&c.PingTimeout, defaultPingTimeout)
	orElse(&c.NodeSilence, defaultNodeSilence)
	orElse(&c.ResumeFor, defaultResumeFor)
	orElse(&c.HandshakeTimeout, defaultHandshakeTimeout)
	orElse(&c.CloseTimeout, defaultCloseTimeout)
	if c.wall == nil {
		c.wall = func(now time.Time) time.Time { return now.Round(0) }
	}
	if c.Logf == nil {
		c.Logf = func(int, string, ...any) {}
	}
	return c
}

func orElse[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}
