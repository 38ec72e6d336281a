package ssmchannel

import (
	"bytes"
	"context"
	"encoding/json"
	"sync"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// peer is an agent for tests, written after the agent's documented ways and
// sharing nothing but the codec with what it tests: one message of at most 1024
// bytes per millisecond, acknowledgement after the "local write", duplicates
// acknowledged again, the oldest message alone repeated at 100 ms ticks.
type peer struct {
	opt peerOptions

	mu       sync.Mutex
	send     func(frame []byte) // to the client; nil while detached
	attached int                // how often
	expected int64
	ahead    map[int64]agentmsg.Message
	number   int64
	unacked  []peerMessage
	input    bytes.Buffer
	started  bool // see peerOptions.startsAfter
	away     bool // swallows everything, as if its websocket were gone
	complete time.Time
	ended    bool
	inputs   int // stream messages seen, duplicates included
	answers  int // handshake responses with new numbers
	early    int // other stream messages seen before the handshake was complete, which an agent loses
	kick     chan struct{}
	pumped   chan struct{} // output has become shorter
	stopped  chan struct{} // run has ended

	outMu     sync.Mutex // taken after mu, if both
	output    []byte     // to be sent
	finishing bool       // end the session after output
}

type peerMessage struct {
	number int64
	frame  []byte
	sent   time.Time
}

type peerOptions struct {
	echo        bool
	noHandshake bool
	startsAfter time.Duration              // what comes before is lost
	actions     []agentmsg.RequestedAction // nil: a Port session
	refuseFor   time.Duration              // no acknowledgement so long after HandshakeComplete
	pace        time.Duration              // between output messages; default 1 ms
	forward     *peer                      // takes the input as its output
	sink        func([]byte)               // takes the input as it comes
	banner      string                     // the port's first words
}

func newPeer(opt peerOptions) *peer {
	if opt.actions == nil {
		opt.actions = []agentmsg.RequestedAction{{
			ActionType:       agentmsg.SessionTypeAction,
			ActionParameters: json.RawMessage(`{"SessionType":"Port","Properties":{"portNumber":"22"}}`),
		}}
	}
	if opt.pace == 0 {
		opt.pace = time.Millisecond
	}
	return &peer{opt: opt, ahead: map[int64]agentmsg.Message{}, kick: make(chan struct{}, 1),
		pumped: make(chan struct{}, 1), stopped: make(chan struct{})}
}

// run is the agent's process; it ends with ctx.
func (p *peer) run(ctx context.Context) {
	defer close(p.stopped)
	select { // the agent begins when both sides are there
	case <-p.kick:
	case <-ctx.Done():
		return
	}
	signal(p.kick)
	wait(ctx, p.opt.startsAfter)
	p.mu.Lock()
	p.started = true
	p.mu.Unlock()
	if p.opt.noHandshake {
		p.sendStream(agentmsg.Output, []byte("$ "))
	} else {
		p.request()
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.resendOldest()
		case <-p.kick:
			for p.pump() && wait(ctx, p.opt.pace) == nil {
			}
		}
	}
}

// request begins the handshake, unless that is done.
func (p *peer) request() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requestLocked()
}

func (p *peer) requestLocked() {
	if p.number > 0 {
		return
	}
	request, _ := agentmsg.MarshalPayload(agentmsg.HandshakeRequest{
		AgentVersion: "3.3.0.0", RequestedClientActions: p.opt.actions,
	})
	p.sendStreamLocked(agentmsg.HandshakeRequestPayload, request)
}

// attach connects the agent to the client until detach, or until the next attach.
func (p *peer) attach(send func([]byte)) (detach func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send = send
	p.attached++
	mine := p.attached
	signal(p.kick)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.attached == mine {
			p.send = nil
		}
	}
}

// write queues output for the client.
func (p *peer) write(b []byte) {
	p.outMu.Lock()
	defer p.outMu.Unlock()
	p.output = append(p.output, b...)
	signal(p.kick)
}

// finish ends the session when the output has been sent.
func (p *peer) finish() {
	p.outMu.Lock()
	defer p.outMu.Unlock()
	p.finishing = true
	signal(p.kick)
}

// pump sends one message and reports whether there is more.
func (p *peer) pump() bool {
	p.mu.Lock()
	paused := p.send == nil // the agent stops to read its source
	p.mu.Unlock()
	p.outMu.Lock()
	n := min(len(p.output), 1024)
	chunk := bytes.Clone(p.output[:n])
	if !paused {
		p.output = p.output[n:]
		signal(p.pumped)
	}
	over := p.finishing && n == 0
	p.outMu.Unlock()
	if over {
		p.end("")
	}
	if n == 0 || paused {
		return false
	}
	p.sendStream(agentmsg.Output, chunk)
	return true
}

func (p *peer) sendStream(kind agentmsg.PayloadType, payload []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendStreamLocked(kind, payload)
}

func (p *peer) sendStreamLocked(kind agentmsg.PayloadType, payload []byte) {
	m := agentmsg.Message{
		Type: agentmsg.OutputStreamData, CreatedMillis: uint64(time.Now().UnixMilli()),
		Sequence: p.number, ID: agentmsg.NewUUID(), PayloadType: kind, Payload: payload,
	}
	if p.number == 0 {
		m.Flags = agentmsg.FlagSyn
	}
	frame := agentmsg.AppendMessage(nil, &m)
	p.unacked = append(p.unacked, peerMessage{p.number, frame, time.Now()})
	p.number++
	p.emitLocked(frame)
}

func (p *peer) emitLocked(frame []byte) {
	if p.send != nil && !p.away {
		p.send(frame)
	}
}

func (p *peer) resendOldest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unacked) > 0 && time.Since(p.unacked[0].sent) >= 200*time.Millisecond {
		p.unacked[0].sent = time.Now()
		p.emitLocked(p.unacked[0].frame)
	}
}

// maxForward is what a peer that forwards lets pile up at the other.
const maxForward = 64 << 10

// awaitForward blocks the reader while the "local write" would block.
func (p *peer) awaitForward() {
	for f := p.opt.forward; f != nil; {
		f.outMu.Lock()
		full := len(f.output) > maxForward
		f.outMu.Unlock()
		if !full {
			return
		}
		select {
		case <-f.pumped:
		case <-f.stopped:
			return
		}
	}
}

// receive takes a message from the client.
func (p *peer) receive(frame []byte) {
	p.awaitForward()
	p.mu.Lock()
	defer p.mu.Unlock()
	var m agentmsg.Message
	if p.away || !p.started && p.opt.startsAfter > 0 || agentmsg.Parse(bytes.Clone(frame), &m) != nil {
		return
	}
	switch m.Type {
	case agentmsg.Acknowledge:
		var a agentmsg.Ack
		if agentmsg.ParseAck(m.Payload, &a) == nil {
			for i := range p.unacked {
				if p.unacked[i].number == a.Sequence {
					p.unacked = append(p.unacked[:i], p.unacked[i+1:]...)
					return
				}
			}
		}
	case agentmsg.InputStreamData:
		p.receiveStream(m)
	}
}

func (p *peer) receiveStream(m agentmsg.Message) {
	p.inputs++
	if p.complete.IsZero() && m.PayloadType != agentmsg.HandshakeResponsePayload {
		p.early++
	}
	if m.Sequence > p.expected {
		p.ahead[m.Sequence] = m
		p.acknowledge(m)
		return
	}
	if m.Sequence < p.expected {
		p.acknowledge(m)
		return
	}
	for {
		if !p.process(m) {
			return // refused: no acknowledgement, no advance
		}
		p.acknowledge(m)
		p.expected++
		next, ok := p.ahead[p.expected]
		if !ok {
			return
		}
		delete(p.ahead, p.expected)
		m = next
	}
}

func (p *peer) process(m agentmsg.Message) bool {
	switch m.PayloadType {
	case agentmsg.HandshakeResponsePayload:
		p.requestLocked() // an answer that came ahead is taken when there is a question
		p.answers++
		response, err := agentmsg.ParseHandshakeResponse(m.Payload)
		for _, a := range response.ProcessedClientActions {
			if a.ActionStatus != agentmsg.ActionSuccess {
				p.endLocked(a.Error)
				return true
			}
		}
		if err == nil {
			p.complete = time.Now()
			p.sendStreamLocked(agentmsg.HandshakeCompletePayload,
				[]byte(`{"HandshakeTimeToComplete":1000000,"CustomerMessage":""}`))
			if p.opt.banner != "" {
				p.sendStreamLocked(agentmsg.Output, []byte(p.opt.banner))
			}
		}
	case agentmsg.Output:
		if p.complete.IsZero() && !p.opt.noHandshake {
			return true // acknowledged and lost
		}
		if time.Since(p.complete) < p.opt.refuseFor {
			return false
		}
		if p.opt.forward != nil {
			p.opt.forward.write(m.Payload)
			return true
		}
		if p.opt.sink != nil {
			p.opt.sink(m.Payload)
			return true
		}
		p.input.Write(m.Payload)
		if p.opt.echo {
			p.write(m.Payload)
		}
	case agentmsg.FlagPayload:
		if flag, _ := agentmsg.ParseFlag(m.Payload); flag == agentmsg.TerminateSession {
			p.endLocked("")
			if p.opt.forward != nil {
				p.opt.forward.finish()
			}
		}
	}
	return true
}

func (p *peer) acknowledge(m agentmsg.Message) {
	p.emitLocked(agentmsg.AppendMessage(nil, &agentmsg.Message{
		Type: agentmsg.Acknowledge, CreatedMillis: uint64(time.Now().UnixMilli()),
		Flags: agentmsg.AckFlags, ID: agentmsg.NewUUID(),
		Payload: agentmsg.AppendAck(nil, &agentmsg.Ack{
			Type: m.Type, ID: m.ID, Sequence: m.Sequence, Sequential: true,
		}),
	}))
}

// end makes the service close the channel.
func (p *peer) end(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(reason)
}

func (p *peer) endLocked(reason string) {
	p.ended = true
	p.emitLocked(channelClosed(reason))
}

func channelClosed(reason string) []byte {
	payload, _ := agentmsg.MarshalPayload(agentmsg.ChannelClosedPayload{
		MessageType: agentmsg.ChannelClosed, SchemaVersion: 1, Output: reason,
	})
	return agentmsg.AppendMessage(nil, &agentmsg.Message{
		HeaderLength: agentmsg.ShortHeaderLength, Type: agentmsg.ChannelClosed,
		CreatedMillis: uint64(time.Now().UnixMilli()), ID: agentmsg.NewUUID(), Payload: payload,
	})
}

// publication is what the service makes: a bare type in a short frame.
func publication(t agentmsg.MessageType) []byte {
	frame := make([]byte, agentmsg.Overhead)
	copy(frame[4:], t)
	return frame
}

func (p *peer) received() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.input.Bytes())
}

func (p *peer) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}
