package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// handshake is the opening exchange, seen from the agent.
type handshake struct {
	complete atomic.Bool
	answers  chan agentmsg.HandshakeResponse // unbuffered, read once: a second response blocks the reader for good
	version  string                          // ClientVersion

	contextChallenge string      // that the data key is to be bound to; "" from old agents
	challenges       chan []byte // the answer to the other challenge
}

func (h *handshake) init() {
	h.answers = make(chan agentmsg.HandshakeResponse)
	h.challenges = make(chan []byte)
}

// respond takes the client's answer. It runs on the reader.
func (h *handshake) respond(ctx context.Context, payload []byte) error {
	r, err := agentmsg.ParseHandshakeResponse(payload)
	if err != nil {
		return err
	}
	select {
	case h.answers <- r:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// prove takes the client's answer to the encryption challenge. It runs on the reader.
func (h *handshake) prove(ctx context.Context, payload []byte) error {
	c, err := agentmsg.ParseEncryptionChallenge(payload)
	if err != nil {
		return err
	}
	select {
	case h.challenges <- c.Challenge:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// requestActions lists what the client has to do.
func (w *worker) requestActions() ([]agentmsg.RequestedAction, error) {
	p := agentmsg.SessionTypeParameters{SessionType: w.session.kind()}
	if p.SessionType == agentmsg.PortSession {
		properties := w.session.properties()
		p.Properties = &properties
	}
	parameters, err := json.Marshal(p)
	actions := []agentmsg.RequestedAction{{ActionType: agentmsg.SessionTypeAction, ActionParameters: parameters}}
	if err != nil || !w.encrypts() {
		return actions, err
	}
	key, err := w.keyAction()
	return append(actions, key), err
}

// performHandshake asks for the session type and waits for the answer (datachannel.go:
// PerformHandshake).
func (w *worker) performHandshake() error {
	began := time.Now()
	actions, err := w.requestActions()
	if err != nil {
		return err
	}
	request := agentmsg.HandshakeRequest{AgentVersion: w.lab.opts.AgentVersion, RequestedClientActions: actions}
	if err := w.sendJSON(agentmsg.HandshakeRequestPayload, request); err != nil {
		return err
	}
	timer := time.NewTimer(w.lab.opts.Timing.Handshake)
	defer timer.Stop()
	select {
	case r := <-w.hs.answers:
		if err := accepted(r); err != nil {
			return err
		}
		w.hs.version = r.ClientVersion
		if w.encrypts() {
			if err := w.encrypt(r); err != nil {
				return err
			}
		}
	case <-timer.C:
		return errHandshake
	case <-w.cancel:
		return errCancelled
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	// The real agent sets its state after sending, but a network hides that from its clients.
	w.hs.complete.Store(true)
	return w.sendJSON(agentmsg.HandshakeCompletePayload, agentmsg.HandshakeComplete{HandshakeTimeToComplete: time.Since(began)})
}

// accepted returns the first refusal among the processed actions: any of them ends the session.
func accepted(r agentmsg.HandshakeResponse) error {
	for _, a := range r.ProcessedClientActions {
		if a.ActionStatus != agentmsg.ActionSuccess {
			return fmt.Errorf("%s failed on client with status %d error: %s", a.ActionType, a.ActionStatus, a.Error)
		}
	}
	return nil
}

func (w *worker) sendJSON(payloadType agentmsg.PayloadType, v any) error {
	payload, err := agentmsg.MarshalPayload(v)
	if err != nil {
		return err
	}
	w.out.send(payloadType, payload)
	return nil
}

// properties returns what the document tells the agent and, in the handshake, the client.
func (s *session) properties() agentmsg.PortProperties {
	p := agentmsg.PortProperties{PortNumber: s.params["portNumber"]}
	if s.document == "AWS-StartSSHSession" {
		return p // no type: one TCP connection, and the session ends with it
	}
	p.Type = "LocalPortForwarding"
	p.LocalPortNumber = s.params["localPortNumber"]
	p.Host = s.params["host"]
	return p
}

// sendState is agent_session_state, for the gateway alone.
func (w *worker) sendState(state string) {
	payload, err := agentmsg.MarshalPayload(agentmsg.AgentSessionStatePayload{
		SchemaVersion: agentmsg.SchemaVersion, SessionState: state, SessionID: w.session.id})
	if err == nil {
		w.link.write(encode(agentmsg.Message{Type: agentmsg.AgentSessionState,
			Flags: agentmsg.FlagSyn | agentmsg.FlagFin, Payload: payload}))
	}
}
