package ssmchannel

import "ssm-ssh/ssmchannel/agentmsg"

// localPortForwarding is the type property of the port-forwarding documents; the
// SSH document has none (agent: session/plugins/port/port.go).
const localPortForwarding = "LocalPortForwarding"

// maxPortErrors bounds the failures that nobody has asked for; the agent's backlog
// of connections (smux: session.go, defaultAcceptBacklog).
const maxPortErrors = 1024

// deliverFlag takes in a flag; one that is not for a client is ignored. c.mu is held.
func (c *Conn) deliverFlag(payload []byte) {
	flag, err := agentmsg.ParseFlag(payload)
	if err != nil {
		c.cfg.Logf(1, "%v", err)
		return
	}
	if flag == agentmsg.ConnectToPortError && c.portErrors.len() < maxPortErrors {
		c.portErrors.push(c.counts.bytesReceived)
	}
}

// takePortError reports whether the agent has said, ahead of the byte with this
// offset, that it could not connect to the port, and forgets that it has. It says
// so for no connection in particular.
func (c *Conn) takePortError(offset uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.portErrors.len() == 0 || *c.portErrors.at(0) > offset {
		return false
	}
	c.portErrors.pop()
	return true
}
