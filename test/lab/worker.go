package lab

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

const (
	payloadBytes = 1024 // largest payload downwards (session/config/config.go: StreamDataPayloadSize)
	// pace is the least time between two messages downwards (port_basic.go sleeps 1 ms after each).
	// A timer set anew after each send can only be late, so drift makes the stand-in slower, as it
	// does the agent.
	pace = time.Millisecond
	// confirmDelay is about how long the real agent takes to report done after channel_closed.
	confirmDelay = 20 * time.Millisecond
	drainTimeout = 2 * time.Second // sessionplugin.go: wait for acknowledgements after the session code
	drainPoll    = 10 * time.Millisecond
)

// agentText is an error in the agent's own words; it reaches the client as Output of channel_closed.
type agentText string

func (t agentText) Error() string { return string(t) }

const (
	errHandshake  agentText = "Handshake timed out. Please ensure that you have the latest version of the session manager plugin."
	errTerminated agentText = "Session is already terminated"
)

// ipcFolder holds a folder for each session, by which the agent and its worker talk to each other.
const ipcFolder = "channels"

// crashOutput is what the service reports when a worker dies at a refused port.
const crashOutput = "document process failed unexpectedly: ipc messaging received timeout signal"

var (
	errCancelled = errors.New("session cancelled")      // channel_closed, on either channel
	errKilled    = errors.New("node went down")         // reboot or the lab's end: no farewell
	errNotReady  = errors.New("handler not ready")      // input is neither acknowledged nor counted
	errCrashed   = errors.New("session worker crashed") // and is silent until the master notices
)

// A worker stands for one ssm-session-worker process: it serves one session and ends with it.
type worker struct {
	lab     *Lab
	node    *Node
	session *session

	ctx     context.Context // ends when the process dies
	kill    context.CancelCauseFunc
	cancel  chan struct{} // closed when the session is cancelled
	once    sync.Once
	counted sync.Once      // the worker has been taken out of the live ones
	parts   sync.WaitGroup // reader, resender, heartbeat

	link *link
	out  *outgoing
	in   *incoming

	hs handshake

	crypt  atomic.Pointer[blockCipher] // nil while nothing is encrypted
	sealMu sync.Mutex                  // one payload is encrypted and sent at a time

	mu      sync.Mutex
	handler inputHandler // nil until the session code takes input
}

// An inputHandler takes the input of a session in the order of its numbers. errNotReady leaves the
// message unacknowledged. It may block; nothing else is read meanwhile.
type inputHandler interface {
	input(payloadType agentmsg.PayloadType, payload []byte) error
}

func newWorker(ctx context.Context, n *Node, s *session) *worker {
	w := &worker{lab: n.lab, node: n, session: s, cancel: make(chan struct{})}
	w.ctx, w.kill = context.WithCancelCause(ctx)
	w.link = &link{worker: w}
	w.out = newOutgoing(w.link.write)
	w.in = newIncoming(w)
	w.hs.init()
	return w
}

// cancelSession makes the session code end, as channel_closed does.
func (w *worker) cancelSession() { w.once.Do(func() { close(w.cancel) }) }

// run is the life of the process.
func (w *worker) run() {
	w.lab.count.workers.Add(1)
	defer w.uncount()
	defer w.parts.Wait()
	defer w.kill(errKilled)
	if w.lab.opts.Inotify {
		ipc, err := openIPC(w.lab.path(ipcFolder), w.session.id)
		if err != nil {
			w.complete(stateFailed, err.Error())
			return
		}
		defer ipc.close()
	}
	if !w.pause(w.lab.opts.Timing.Spawn) {
		return
	}
	if err := w.link.open(); err != nil {
		w.complete(stateFailed, "data channel: "+err.Error())
		return
	}
	w.parts.Go(w.link.readLoop)
	w.parts.Go(w.resendLoop)
	w.parts.Go(w.link.heartbeat)
	w.sendState("Connected")
	err := w.serve()
	if w.ctx.Err() != nil {
		return // killed: the service is not told
	}
	w.leave(err)
}

// serve is the session: handshake, then the port or the command. nil is an orderly end.
func (w *worker) serve() error {
	if !w.needsHandshake() {
		w.hs.complete.Store(true)
	} else if err := w.performHandshake(); err != nil {
		return err
	}
	if w.session.kind() != agentmsg.PortSession {
		return w.serveCommand()
	}
	return w.servePort()
}

// leave ends the session in order (sessionplugin.go: Execute): drain, say so, close, report.
func (w *worker) leave(err error) {
	if errors.Is(err, errCrashed) {
		w.crash()
		return
	}
	state, output := stateTerminated, ""
	switch {
	case errors.Is(err, errCancelled):
		w.pause(confirmDelay)
	case err != nil:
		state, output = stateFailed, err.Error()
		w.drain()
	default:
		w.drain()
	}
	w.sendState("Terminating")
	w.link.shut()
	w.complete(state, output)
	w.pause(w.lab.opts.Timing.Linger)
}

// crash is the end of a worker whose port is refused: the process dies, its master notices after a
// minute of silence, and only then does the client hear of it.
func (w *worker) crash() {
	w.link.shut()
	w.uncount()
	select {
	case <-time.After(w.lab.opts.Timing.CrashSilence):
		w.complete(stateFailed, crashOutput)
	case <-w.cancel:
		w.complete(stateTerminated, "")
	case <-w.ctx.Done():
	}
}

// uncount takes the worker out of the live ones.
func (w *worker) uncount() { w.counted.Do(func() { w.lab.count.workers.Add(-1) }) }

// complete is agent_task_complete on the control channel: the service ends the data channel.
func (w *worker) complete(state, output string) {
	if w.ctx.Err() != nil {
		return
	}
	w.lab.opts.Logf(2, "lab: agent: %s: %s %s", w.session.id, state, output)
	if live, _ := w.session.live(); !live {
		return
	}
	w.session.channel.announceClosed(output)
	w.session.over(state)
}

// drain waits until everything sent is acknowledged, but not long.
func (w *worker) drain() {
	limit := time.Now().Add(drainTimeout)
	for w.out.pending() > 0 && time.Now().Before(limit) {
		if !w.pause(drainPoll) {
			return
		}
	}
}

// resendLoop is the scheduler of retransmissions (datachannel.go: ResendStreamDataMessageScheduler).
func (w *worker) resendLoop() {
	tick := time.NewTicker(resendTick)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			w.out.resend(now)
		case <-w.ctx.Done():
			return
		}
	}
}

// pause waits for d; false when the process is killed meanwhile.
func (w *worker) pause(d time.Duration) bool {
	if d <= 0 {
		return w.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// setHandler makes the session code take the input from now on.
func (w *worker) setHandler(h inputHandler) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handler = h
}

func (w *worker) currentHandler() inputHandler {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.handler
}

// compareVersions compares dotted versions as the agent does (versionutil.go: Compare): part by
// part, as numbers where both are, as text otherwise; a version that ends first is smaller.
func compareVersions(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		if c := compareParts(as[i], bs[i]); c != 0 {
			return c
		}
	}
	return len(as) - len(bs)
}

func compareParts(a, b string) int {
	x, errA := strconv.Atoi(a)
	y, errB := strconv.Atoi(b)
	if errA == nil && errB == nil {
		return x - y
	}
	return strings.Compare(a, b)
}
