package ssmchannel

import (
	"fmt"

	"ssm-ssh/ssmchannel/agentmsg"
)

// This file is about answering the agent's handshake before it has asked (Config.AnswerAhead). The agent
// takes the answer whenever it comes: its reader hands it over when the handshake has got that far
// (agent: session/datachannel/datachannel.go, Initialize, handleHandshakeResponse, PerformHandshake).
// An answer that came before the agent itself is lost or held back by the service; then the request
// has it sent again, with its number, as if it had waited.

// answerAhead sends the answer. What the agent sends first is its request, number 0: nothing waits for
// it any more.
func (c *Conn) answerAhead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.next = 1
	c.shake.ahead = true
	c.shake.sessionType = agentmsg.PortSession
	return c.respond(agentmsg.HandshakeResponse{
		ClientVersion:          c.cfg.ClientVersion,
		ProcessedClientActions: []agentmsg.ProcessedAction{{ActionType: agentmsg.SessionTypeAction, ActionStatus: agentmsg.ActionSuccess}},
	})
}

// requestedAfterAll takes the request that was answered ahead: what it tells, and whether the answer
// was right. c.mu is held.
func (c *Conn) requestedAfterAll(payload []byte) error {
	if !c.shake.ahead {
		return nil // a repetition
	}
	request, err := agentmsg.ParseHandshakeRequest(payload)
	if err != nil {
		return err
	}
	c.shake.ahead = false
	c.shake.agentVersion = request.AgentVersion
	c.cfg.Logf(2, "ssmchannel: handshake request from agent %s, answered ahead", request.AgentVersion)
	for i := range request.RequestedClientActions {
		switch action := &request.RequestedClientActions[i]; action.ActionType {
		case agentmsg.SessionTypeAction:
			c.setSessionType(action)
		case agentmsg.KMSEncryptionAction:
			return fmt.Errorf("%w: encryption is wanted in a session that has none", ErrProtocol)
		}
	}
	if c.out.again(c.shake.response) {
		signal(c.sendable)
	}
	return nil
}
