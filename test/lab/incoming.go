package lab

import (
	"bytes"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// incomingAtMost is how far ahead the agent stores (config.go: IncomingMessageBufferCapacity).
const incomingAtMost = 100_000

// incoming is the agent's receiving side. It belongs to the reader goroutine of the worker: a
// message is handled, the local write included, and then acknowledged, before the next is read.
type incoming struct {
	worker   *worker
	expected int64
	ahead    map[int64]input // acknowledged already, not yet handled
}

type input struct {
	payloadType agentmsg.PayloadType
	payload     []byte
}

func newIncoming(w *worker) *incoming {
	return &incoming{worker: w, ahead: make(map[int64]input)}
}

// handle takes one message from the websocket. The frame is only lent.
func (in *incoming) handle(frame []byte) {
	var m agentmsg.Message
	if agentmsg.Parse(frame, &m) != nil {
		return
	}
	w := in.worker
	switch m.Type {
	case agentmsg.InputStreamData:
		w.out.setPaused(false)
		in.stream(&m)
	case agentmsg.Acknowledge:
		w.out.setPaused(false)
		var ack agentmsg.Ack
		if agentmsg.ParseAck(m.Payload, &ack) == nil {
			w.out.acknowledge(ack.Sequence, time.Now())
		}
	case agentmsg.PausePublication:
		w.out.setPaused(true)
	case agentmsg.StartPublication:
		w.out.setPaused(false)
	case agentmsg.ChannelClosed:
		w.cancelSession()
	}
}

// stream applies the agent's rules for input (datachannel.go: handleStreamDataMessage). Like the
// agent it does not check the digest.
func (in *incoming) stream(m *agentmsg.Message) {
	switch {
	case m.Sequence < in.expected:
		in.acknowledge(m) // an old one again
	case m.Sequence > in.expected:
		if len(in.ahead) < incomingAtMost {
			in.acknowledge(m)
			in.ahead[m.Sequence] = input{m.PayloadType, bytes.Clone(m.Payload)}
		}
	case in.process(input{m.PayloadType, m.Payload}) == nil:
		in.acknowledge(m)
		in.expected++
		in.drain()
	}
}

// drain handles the messages that were stored until their turn.
func (in *incoming) drain() {
	for {
		next, ok := in.ahead[in.expected]
		if !ok || in.process(next) != nil {
			return
		}
		delete(in.ahead, in.expected)
		in.expected++
	}
}

// process gives a message to the handshake or to the session; an error leaves it unacknowledged.
func (in *incoming) process(m input) error {
	w := in.worker
	if m.payloadType == agentmsg.HandshakeResponsePayload {
		return w.hs.respond(w.ctx, m.payload)
	}
	if m.payloadType == agentmsg.EncChallengeResponse && w.encrypts() {
		return w.hs.prove(w.ctx, m.payload)
	}
	if !w.hs.complete.Load() {
		w.lab.count.discarded.Add(1)
		return nil // acknowledged and lost (datachannel.go: processStreamDataMessage)
	}
	if flag, err := agentmsg.ParseFlag(m.payload); m.payloadType == agentmsg.FlagPayload && err == nil && flag == agentmsg.TerminateSession {
		w.session.note(StepFlag)
	}
	h := w.currentHandler()
	if h == nil {
		w.lab.count.refused.Add(1)
		return errNotReady
	}
	m, err := w.reveal(m)
	if err != nil {
		return err
	}
	return h.input(m.payloadType, m.payload)
}

func (in *incoming) acknowledge(m *agentmsg.Message) { in.worker.link.write(ackFrame(m)) }
