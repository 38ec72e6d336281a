package ssmchannel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
)

// maxMessageBytes is the largest message that is taken in. The service's known
// limit is 142000 on the control channel (agent: session/config/config.go,
// ControlChannelWriteBufferSizeLimit); data messages have 1144 bytes.
const maxMessageBytes = 256 << 10

// wsLink is a link over a websocket.
type wsLink struct {
	ws     *websocket.Conn
	body   *corkedBody
	socket syscall.RawConn // nil: not known
	buf    []byte
}

// webDialer returns the dialer that connects to the service.
func webDialer(cfg *Config, clientID string) dialer {
	return func(ctx context.Context, s Session, events linkEvents) (link, error) {
		header, err := signedHeader(ctx, cfg, s.StreamURL)
		if err != nil {
			return nil, err
		}
		l, err := dialWebsocket(ctx, cfg.HTTPClient, s.StreamURL, header, events)
		if err != nil {
			return nil, err
		}
		if err := l.open(ctx, s.Token, clientID, cfg.ClientVersion); err != nil {
			l.Close()
			return nil, &DialError{Err: err}
		}
		return l, nil
	}
}

// signedHeader returns the headers of the upgrade request.
func signedHeader(ctx context.Context, cfg *Config, streamURL string) (http.Header, error) {
	if cfg.Sign == nil || presigned(streamURL) {
		return nil, nil
	}
	header, err := cfg.Sign(ctx, streamURL)
	if err != nil {
		return nil, fmt.Errorf("signing stream URL: %w", err)
	}
	return header, nil
}

// presigned reports whether the URL carries its own signature (plugin:
// communicator/websocketchannel.go, IsPresignedURL).
func presigned(streamURL string) bool {
	u, err := url.Parse(streamURL)
	return err == nil && u.Query().Has("X-Amz-Signature")
}

// dialWebsocket opens the websocket. The URL is used as it is: its query holds
// an opaque cell number that must not be encoded anew.
func dialWebsocket(ctx context.Context, client *http.Client, streamURL string, header http.Header, events linkEvents) (*wsLink, error) {
	base := client.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	cork := &corkTransport{base: base, events: events}
	corked := *client
	corked.Transport = cork
	var finder socketFinder
	ws, resp, err := websocket.Dial(finder.trace(ctx), streamURL, &websocket.DialOptions{
		HTTPClient: &corked,
		HTTPHeader: header,
	})
	if err != nil {
		dialErr := &DialError{Err: withoutURL(err)}
		if resp != nil {
			dialErr.StatusCode = resp.StatusCode
		}
		return nil, dialErr
	}
	ws.SetReadLimit(-1) // Read bounds itself, without closing the websocket
	return &wsLink{ws: ws, body: cork.body, socket: finder.socket(), buf: make([]byte, 0, corkedReadBytes)}, nil
}

// withoutURL strips the request's URL from an error: a presigned one is a secret.
func withoutURL(err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		return urlErr.Err
	}
	return err
}

// open sends the opening message, a text message (plugin:
// datachannel/streaming.go, FinalizeDataChannelHandshake).
func (l *wsLink) open(ctx context.Context, token, clientID, clientVersion string) error {
	text, err := agentmsg.MarshalPayload(agentmsg.OpenDataChannel{
		MessageSchemaVersion: agentmsg.OpenSchemaVersion,
		RequestID:            agentmsg.NewUUID().String(),
		TokenValue:           token,
		ClientID:             clientID,
		ClientVersion:        clientVersion,
	})
	if err != nil {
		return err
	}
	if err := l.ws.Write(ctx, websocket.MessageText, text); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, l.Close)
	defer stop()
	return l.Flush()
}

// Read implements link. Text messages are taken as binary ones, as both official
// peers do. A message above maxMessageBytes comes back cut, which no parser
// accepts.
func (l *wsLink) Read() ([]byte, error) {
	_, r, err := l.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	l.buf = l.buf[:0]
	for {
		if len(l.buf) == cap(l.buf) {
			l.buf = append(l.buf, 0)[:len(l.buf)]
		}
		n, err := r.Read(l.buf[len(l.buf):cap(l.buf)])
		l.buf = l.buf[:len(l.buf)+n]
		if errors.Is(err, io.EOF) {
			return l.buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(l.buf) > maxMessageBytes {
			_, err := io.Copy(io.Discard, r)
			return l.buf[:0], err
		}
	}
}

// Write implements link.
func (l *wsLink) Write(message []byte) error {
	l.body.writing.Store(true)
	defer l.body.writing.Store(false)
	return l.ws.Write(context.Background(), websocket.MessageBinary, message)
}

// Quiet implements link.
func (l *wsLink) Quiet(on bool) {
	if l.socket != nil {
		quiet(l.socket, on)
	}
}

func (l *wsLink) Flush() error                   { return l.body.flush() }
func (l *wsLink) Ping(ctx context.Context) error { return l.ws.Ping(ctx) }
func (l *wsLink) Close()                         { l.ws.CloseNow() }

func (l *wsLink) LastRead() time.Time {
	return l.body.created.Add(time.Duration(l.body.lastRead.Load()))
}
