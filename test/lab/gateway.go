package lab

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
)

const (
	channelPath = "/v1/data-channel/"
	// openTimeout bounds the wait for the open message; the real service's limit is not known.
	openTimeout = 15 * time.Second
	// messageLimit is the largest frame that the gateway takes. The real limit of the data channel
	// is not known; the control channel of the same service takes 142 000 bytes.
	messageLimit = 142_000
)

// streamURL returns the address of the session's data channel. The cell number holds + and /
// unescaped, as the real one does.
func (l *Lab) streamURL(s *session) string {
	return strings.Replace(l.gatewayURL, "http", "ws", 1) + channelPath + s.id + "?role=publish_subscribe&cell-number=" + s.cell
}

// serveClientChannel is the client's end of the gateway; it returns when the connection ends.
func (l *Lab) serveClientChannel(w http.ResponseWriter, r *http.Request) {
	s := l.sessions.find(strings.TrimPrefix(r.URL.Path, channelPath))
	if s == nil || !strings.Contains(r.URL.RawQuery, "cell-number="+s.cell) {
		http.Error(w, "no such data channel", http.StatusNotFound)
		return
	}
	signed := r.Header.Get("Authorization") != ""
	if signed || l.faults.now.Load().RequireSignature {
		if err := l.keys.verify(r, nil, "ssmmessages"); err != nil {
			l.opts.Logf(1, "lab: gateway: %s: %v", s.id, err)
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		l.count.signed.Add(1)
	}
	l.serveChannel(w, r, s, false)
}

// serveAgentChannel is the worker's end of the gateway.
func (l *Lab) serveAgentChannel(w http.ResponseWriter, r *http.Request) {
	if s := l.sessions.find(strings.TrimPrefix(r.URL.Path, channelPath)); s != nil {
		l.serveChannel(w, r, s, true)
		return
	}
	http.Error(w, "no such data channel", http.StatusNotFound)
}

func (l *Lab) serveChannel(w http.ResponseWriter, r *http.Request, s *session, agent bool) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return // Accept has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(messageLimit)
	open, err := readOpen(l.ctx, ws)
	faults := l.faults.now.Load()
	if err != nil || (faults.RefuseToken && !agent) || !s.redeem(open.TokenValue, agent, l.faults.tokenLife()) {
		// What the service closes with is not known; clients must treat any close right after the
		// open message alike.
		ws.Close(websocket.StatusPolicyViolation, "invalid token")
		return
	}
	if !agent {
		l.count.channels.Add(1)
	}
	p := &peer{ws: ws, agent: agent, gone: make(chan struct{})}
	defer close(p.gone)
	s.channel.attach(p)
	defer s.channel.detach(p)
	if !agent {
		defer s.note(StepSocket)
	}
	frames := frameReader{ws: ws}
	for {
		frame, err := frames.next(l.ctx)
		if err != nil {
			l.logEnd(s, p, err)
			return
		}
		s.channel.relay(p, frame)
	}
}

func (l *Lab) logEnd(s *session, p *peer, err error) {
	var closed websocket.CloseError
	switch {
	case errors.As(err, &closed):
		l.opts.Logf(2, "lab: gateway: %s: %s closed: %d %q", s.id, p, closed.Code, closed.Reason)
	default:
		l.opts.Logf(2, "lab: gateway: %s: %s lost", s.id, p)
	}
}

// readOpen reads the first, textual message of a data channel.
func readOpen(ctx context.Context, ws *websocket.Conn) (agentmsg.OpenDataChannel, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	_, text, err := ws.Read(ctx)
	if err != nil {
		return agentmsg.OpenDataChannel{}, err
	}
	return agentmsg.ParseOpenDataChannel(text)
}
