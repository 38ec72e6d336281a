package ssmchannel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
)

// faults are what a network does to messages; probabilities are 0 to 1.
type faults struct {
	delay     time.Duration
	drop      float64
	duplicate float64
	reorder   float64 // held back behind the next few
	rate      int     // up, in bytes per second; 0 is unlimited
	queue     int     // how many bytes wait for that before more is dropped; 0 is unlimited
	seed      uint64
}

// network is an in-memory service between a Conn and a peer.
type network struct {
	peer  *peer
	token atomic.Int64
	began time.Time

	mu      sync.Mutex
	faults  faults
	random  *rand.Rand
	steps   int64 // messages handed to a hop, and what came out of one
	doubled int
	links   []*memLink
	refuse  error // answer of dial
	resume  error // answer of ResumeSession
	resumes int
	tap     func(up bool, frame []byte) bool // false drops the message
}

func newNetwork(p *peer, f faults) *network {
	return &network{peer: p, began: time.Now(), faults: f, random: rand.New(rand.NewPCG(f.seed, 2))}
}

func (n *network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// cut breaks the present link, as a network does: both sides see an error.
func (n *network) cut() {
	n.mu.Lock()
	links := n.links
	n.links = nil
	n.mu.Unlock()
	for _, l := range links {
		l.end(errors.New("connection reset by test"))
	}
}

// dial is a dialer.
func (n *network) dial(_ context.Context, _ Session, events linkEvents) (link, error) {
	l := &memLink{network: n, events: events, done: make(chan struct{}), arrived: make(chan []byte, 1<<12)}
	l.up.init(l, func(frame []byte) { n.peer.receive(frame) })
	l.down.init(l, func(frame []byte) {
		select {
		case l.arrived <- frame:
		case <-l.done:
		}
	})
	l.touch()
	if err := n.join(l); err != nil {
		return nil, err
	}
	// Not under the lock, which the peer takes when it sends under its own.
	n.peer.attach(func(frame []byte) { l.down.send(bytes.Clone(frame)) })
	return l, nil
}

// join makes a link one of the network's, or refuses it.
func (n *network) join(l *memLink) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse == nil {
		n.links = append(n.links, l)
	}
	return n.refuse
}

// resumeSession is a Config.Resume.
func (n *network) resumeSession(_ context.Context, id string) (Session, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resumes++
	if n.resume != nil {
		return Session{}, n.resume
	}
	return Session{ID: id, Token: fmt.Sprint("token-", n.token.Add(1))}, nil
}

// inject sends a message of the service's own to the client, without faults.
func (n *network) inject(frame []byte) {
	n.mu.Lock()
	links := slices.Clone(n.links)
	n.mu.Unlock()
	for _, l := range links {
		select {
		case l.arrived <- frame:
		case <-l.done:
		}
	}
}

// memLink is a link in memory with two hops.
type memLink struct {
	network  *network
	events   linkEvents
	up, down hop
	arrived  chan []byte
	queued   [][]byte
	lastRead atomic.Int64
	deaf     atomic.Bool // pings are not answered
	clogged  atomic.Bool // nothing written is taken; pings come through

	once sync.Once
	done chan struct{}
	err  error
}

func (l *memLink) end(err error) {
	l.once.Do(func() { l.err = err; close(l.done) })
	n := l.network
	n.set(func() { n.links = slices.DeleteFunc(n.links, func(other *memLink) bool { return other == l }) })
}

func (l *memLink) Close()              { l.end(errors.New("link closed")) }
func (l *memLink) LastRead() time.Time { return time.Unix(0, l.lastRead.Load()) }
func (l *memLink) Quiet(bool)          {}
func (l *memLink) touch()              { l.lastRead.Store(time.Now().UnixNano()) }

func (l *memLink) Read() ([]byte, error) {
	select {
	case frame := <-l.arrived:
		l.touch()
		return frame, nil
	default:
	}
	l.events.beforeRead()
	select {
	case frame := <-l.arrived:
		l.touch()
		return frame, nil
	case <-l.done:
		return nil, l.err
	}
}

func (l *memLink) Write(message []byte) error {
	if isClosed(l.done) {
		return l.err
	}
	l.queued = append(l.queued, bytes.Clone(message))
	return nil
}

func (l *memLink) Flush() error {
	if l.clogged.Load() {
		<-l.done
	}
	for _, frame := range l.queued {
		l.up.send(frame)
	}
	l.queued = l.queued[:0]
	if isClosed(l.done) {
		return l.err
	}
	return nil
}

func (l *memLink) Ping(ctx context.Context) error {
	if !l.deaf.Load() {
		l.touch()
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// hop is one direction of a memLink: it delays, drops, repeats and reorders.
type hop struct {
	link    *memLink
	deliver func([]byte)
	isUp    bool
	mu      sync.Mutex
	queue   []hopMessage
	free    time.Time // when what is queued will have passed at faults.rate
	armed   bool
}

type hopMessage struct {
	at    time.Time
	frame []byte
}

func (h *hop) init(l *memLink, deliver func([]byte)) {
	h.link, h.deliver, h.isUp = l, deliver, h == &l.up
}

func (h *hop) send(frame []byte) {
	n := h.link.network
	n.mu.Lock()
	n.steps++
	f, tap := n.faults, n.tap
	dropped := n.random.Float64() < f.drop
	copies := 1
	if n.random.Float64() < f.duplicate {
		copies = 2
		n.doubled++
	}
	behind := 0
	if n.random.Float64() < f.reorder {
		behind = 1 + n.random.IntN(5)
	}
	n.mu.Unlock()
	if dropped || tap != nil && !tap(h.isUp, frame) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	at := time.Now()
	if h.isUp && f.rate > 0 {
		waits := max(0, h.free.Sub(at))
		if f.queue > 0 && int(waits.Seconds()*float64(f.rate)) > f.queue {
			return
		}
		h.free = at.Add(waits + time.Duration(len(frame))*time.Second/time.Duration(f.rate))
		at = h.free
	}
	for range copies {
		h.queue = append(h.queue, hopMessage{at.Add(f.delay), frame})
	}
	if behind > 0 && len(h.queue) > copies {
		i := max(0, len(h.queue)-1-behind)
		h.queue[i].frame, h.queue[len(h.queue)-1].frame = h.queue[len(h.queue)-1].frame, h.queue[i].frame
	}
	if !h.armed {
		h.schedule()
	}
}

// schedule arms the timer for the first message; h.mu is held.
func (h *hop) schedule() {
	h.armed = len(h.queue) > 0
	if !h.armed {
		return
	}
	if d := time.Until(h.queue[0].at); d > 0 {
		time.AfterFunc(d, h.arrive)
	} else {
		go h.arrive() // see stoppedTimer
	}
}

func (h *hop) arrive() {
	h.mu.Lock()
	now := time.Now()
	var ready [][]byte
	for len(h.queue) > 0 && !h.queue[0].at.After(now) {
		ready = append(ready, h.queue[0].frame)
		h.queue = h.queue[1:]
	}
	h.mu.Unlock()
	if !isClosed(h.link.done) {
		h.link.network.set(func() { h.link.network.steps += int64(len(ready)) })
		for _, frame := range ready {
			h.deliver(frame)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.schedule()
}

// gateway is a service over real websockets, for one session and one peer.
type gateway struct {
	*httptest.Server
	peer *peer

	mu      sync.Mutex
	opens   []agentmsg.OpenDataChannel
	queries []string
	headers []http.Header
	live    map[*websocket.Conn]struct{}
	status  int // answer to the upgrade, if not zero
}

func newGateway(tb testing.TB, p *peer) *gateway {
	g := &gateway{peer: p, live: map[*websocket.Conn]struct{}{}}
	g.Server = httptest.NewServer(http.HandlerFunc(g.serve))
	ctx, cancel := context.WithCancel(context.Background())
	var agent sync.WaitGroup
	agent.Go(func() { p.run(ctx) })
	tb.Cleanup(func() {
		g.cutAll()
		g.Close()
		cancel()
		agent.Wait()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return g
}

func (g *gateway) session() Session {
	return Session{
		ID:        "user-0123456789abcdef0",
		StreamURL: "ws" + g.URL[len("http"):] + "/v1/data-channel/user-0123456789abcdef0?role=publish_subscribe&cell-number=AAEAA+q/7w==",
		Token:     "secret-token",
	}
}

func (g *gateway) cutAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for ws := range g.live {
		ws.CloseNow()
	}
}

func (g *gateway) serve(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	status := g.status
	g.queries = append(g.queries, r.URL.RawQuery)
	g.headers = append(g.headers, r.Header.Clone())
	g.mu.Unlock()
	if status != 0 {
		http.Error(w, "no", status)
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ctx := context.Background()
	kind, text, err := ws.Read(ctx)
	open, parseErr := agentmsg.ParseOpenDataChannel(text)
	if err != nil || parseErr != nil || kind != websocket.MessageText {
		return
	}
	g.mu.Lock()
	g.opens = append(g.opens, open)
	g.live[ws] = struct{}{}
	g.mu.Unlock()
	out := make(chan []byte, 16)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case frame := <-out:
				ws.Write(ctx, websocket.MessageBinary, frame)
			case <-stop:
				return
			}
		}
	})
	detach := g.peer.attach(func(frame []byte) {
		select {
		case out <- bytes.Clone(frame):
		case <-stop:
		}
	})
	for {
		_, frame, err := ws.Read(ctx)
		if err != nil {
			break
		}
		g.peer.receive(frame)
	}
	g.mu.Lock()
	delete(g.live, ws)
	g.mu.Unlock()
	close(stop)
	detach()
	writer.Wait()
}
