package lab

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
)

const (
	linkTries      = 6                      // retryer.go: first try and five repetitions
	linkFirstPause = 100 * time.Millisecond // doubled each time, plus up to 100 ms
	dialTimeout    = 15 * time.Second
	pingEvery      = 54 * time.Second // config.go: WebSocketPingInterval
	pongWithin     = 60 * time.Second // WebSocketPongWaitTimeout
)

// link is the worker's websocket, replaced when it is lost. The reader goroutine replaces it;
// everybody may write.
type link struct {
	worker *worker

	mu   sync.Mutex
	ws   *websocket.Conn
	done bool // shut on purpose: not replaced
}

// open asks for a token and connects.
func (l *link) open() error {
	w := l.worker
	if live, _ := w.session.live(); !live {
		return errTerminated
	}
	ctx, cancel := context.WithTimeout(w.ctx, dialTimeout)
	defer cancel()
	url := strings.Replace(w.lab.agentURL, "http", "ws", 1) + channelPath + w.session.id + "?role=publish_subscribe"
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: w.lab.agentHTTP})
	if err != nil {
		return err
	}
	ws.SetReadLimit(-1)
	open, err := agentmsg.MarshalPayload(agentmsg.OpenDataChannel{MessageSchemaVersion: agentmsg.OpenSchemaVersion,
		RequestID: requestID(), TokenValue: w.session.newToken(true), ClientInstanceID: w.node.id})
	if err == nil {
		err = ws.Write(ctx, websocket.MessageText, open)
	}
	if err != nil {
		ws.CloseNow()
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		ws.CloseNow()
		return errCancelled
	}
	l.ws = ws
	return nil
}

// current returns the websocket of the moment, nil while there is none.
func (l *link) current() (ws *websocket.Conn, done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ws, l.done
}

// write sends a frame if there is a websocket; what is lost is repeated by those who keep it.
func (l *link) write(frame []byte) {
	if ws, _ := l.current(); ws != nil {
		ws.Write(l.worker.ctx, websocket.MessageBinary, frame)
	}
}

// shut closes the websocket for good, without a close frame, as the agent does.
func (l *link) shut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	if l.ws != nil {
		l.ws.CloseNow()
		l.ws = nil
	}
}

// readLoop is the worker's only reader: every message is handled before the next is read.
func (l *link) readLoop() {
	defer l.shut()
	var frames frameReader
	for {
		ws, done := l.current()
		if done {
			return
		}
		frames.ws = ws
		frame, err := frames.next(l.worker.ctx)
		if err == nil {
			l.worker.in.handle(frame)
			continue
		}
		ws.CloseNow()
		if !l.reopen() {
			return // deaf: the worker lives on until its port ends or the control channel ends it
		}
	}
}

// reopen replaces a lost websocket; it gives up after some seconds, as the real agent does.
func (l *link) reopen() bool {
	wait := linkFirstPause
	for try := range linkTries {
		if _, done := l.current(); done || l.worker.ctx.Err() != nil {
			return false
		}
		if try > 0 {
			if !l.worker.pause(wait + rand.N(linkFirstPause)) {
				return false
			}
			wait *= 2
		}
		if l.open() == nil {
			l.worker.lab.opts.Logf(2, "lab: agent: %s: reconnected", l.worker.session.id)
			l.worker.out.setPaused(false)
			return true
		}
	}
	return false
}

// heartbeat pings the gateway; a pong that does not come, be it that the reader is blocked, costs
// the websocket.
func (l *link) heartbeat() {
	for l.worker.pause(l.worker.lab.opts.Timing.AgentPing) {
		ws, done := l.current()
		if done {
			return
		}
		if ws == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(l.worker.ctx, pongWithin)
		if ws.Ping(ctx) != nil {
			ws.CloseNow()
		}
		cancel()
	}
}
