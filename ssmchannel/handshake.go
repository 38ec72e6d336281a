package ssmchannel

import (
	"fmt"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// handshake is the state of the opening exchange. Conn.mu guards it.
type handshake struct {
	answered     bool // a request was taken
	responded    bool // and our response queued
	complete     bool
	response     int64 // number of our response
	agentVersion string
	ahead        bool   // the answer has left, the request has not come
	sessionType  string // as the agent names it; "" without a handshake
	forwarding   bool   // a Port session that can have several connections
	port         string // of a Port session, as the agent names it
	err          error  // why there will be no data

	wanted     *keyRequest  // the response, while there is no data key
	crypt      *blockCipher // nil: the session is not encrypted
	challenged bool
}

// answerHandshake replies to the agent's request. The agent reads one response in
// its life and hangs on a second, so a second request is not answered (agent:
// session/datachannel/datachannel.go, handleHandshakeResponse). c.mu is held.
func (c *Conn) answerHandshake(payload []byte) error {
	if c.shake.answered || c.shake.complete {
		c.cfg.Logf(2, "ssmchannel: ignoring a second handshake request")
		return nil
	}
	request, err := agentmsg.ParseHandshakeRequest(payload)
	if err != nil {
		return err
	}
	response, refused := c.processActions(request)
	c.shake.answered = true
	c.shake.agentVersion = request.AgentVersion
	c.cfg.Logf(2, "ssmchannel: handshake request from agent %s", request.AgentVersion)
	if c.shake.wanted != nil {
		c.shake.wanted.response = response
		signal(c.keyWanted)
		return nil
	}
	if err := c.respond(response); err != nil {
		return err
	}
	if refused != nil {
		c.endHandshake(refused)
	}
	return nil
}

// respond sends the handshake response. c.mu is held.
func (c *Conn) respond(response agentmsg.HandshakeResponse) error {
	answer, err := agentmsg.MarshalPayload(response)
	if err != nil {
		return err
	}
	c.shake.response = c.out.push(c.newFrame(agentmsg.HandshakeResponsePayload, answer))
	c.shake.responded = true
	signal(c.sendable)
	return nil
}

// processActions answers the requested actions. An unknown one is left out: the
// agent cancels the session on any answer but success and does not count the
// answers.
func (c *Conn) processActions(request agentmsg.HandshakeRequest) (agentmsg.HandshakeResponse, error) {
	response := agentmsg.HandshakeResponse{ClientVersion: c.cfg.ClientVersion}
	var refused error
	for i := range request.RequestedClientActions {
		action := &request.RequestedClientActions[i]
		answer := agentmsg.ProcessedAction{ActionType: action.ActionType}
		switch action.ActionType {
		case agentmsg.SessionTypeAction:
			answer.ActionStatus = agentmsg.ActionSuccess
			c.setSessionType(action)
		case agentmsg.KMSEncryptionAction:
			if c.cfg.GenerateDataKey == nil {
				refused = ErrEncryption
				answer.ActionStatus, answer.Error = agentmsg.ActionFailed, refused.Error()
				break
			}
			p, err := action.KMS()
			if err != nil {
				refused = err
				answer.ActionStatus, answer.Error = agentmsg.ActionFailed, err.Error()
				break
			}
			c.shake.wanted = &keyRequest{parameters: p, action: len(response.ProcessedClientActions)}
		default:
			c.cfg.Logf(1, "ssmchannel: leaving out the unknown action %q", action.ActionType)
			continue
		}
		response.ProcessedClientActions = append(response.ProcessedClientActions, answer)
	}
	return response, refused
}

// setSessionType takes note of what kind of session this is.
func (c *Conn) setSessionType(action *agentmsg.RequestedAction) {
	p, err := action.SessionType()
	if err != nil {
		c.cfg.Logf(1, "ssmchannel: %v", err)
		return
	}
	c.shake.sessionType = p.SessionType
	if p.Properties != nil {
		c.shake.port = p.Properties.PortNumber
		c.shake.forwarding = p.Properties.Type == localPortForwarding
	}
}

// completeHandshake takes the agent's word that data may flow. It also shows
// that our response has arrived, whose acknowledgement may come later. c.mu is
// held.
func (c *Conn) completeHandshake(now time.Time, payload []byte) {
	if c.shake.wanted != nil && c.shake.crypt == nil {
		c.endHandshake(fmt.Errorf("%w: handshake complete before there is a key", ErrProtocol))
		return
	}
	if c.shake.responded {
		c.out.acked(now, c.shake.response)
	}
	if c.cfg.AnswerAhead {
		c.out.begin()
	}
	c.out.opening = true
	if done, err := agentmsg.ParseHandshakeComplete(payload); err == nil && done.CustomerMessage != "" {
		c.cfg.Logf(0, "%s", done.CustomerMessage)
	}
	c.endHandshake(nil)
}

// endHandshake lets Dial return. c.mu is held.
func (c *Conn) endHandshake(err error) {
	if c.shake.complete || c.shake.err != nil {
		return
	}
	c.shake.complete = err == nil
	if err != nil {
		c.shake.err = edge(fmt.Errorf("handshake: %w", err))
	}
	close(c.ready)
}
