package sshproxy

import (
	"cmp"
	"context"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Names of OpenSSH's agent forwarding (PROTOCOL.agent of OpenSSH; draft-ietf-sshm-ssh-agent 7), and of the
// extension by which an agent learns where a signature will go (PROTOCOL.agent section 1).
const (
	agentChannel  = "auth-agent@openssh.com"
	agentRequest  = "auth-agent-req@openssh.com"
	bindExtension = "session-bind@openssh.com"
)

// sessionBind tells an agent to which server its connection leads, with the server's own signature as proof. An
// agent then uses keys that are bound to destinations (ssh-add -h), and refuses them elsewhere.
type sessionBind struct {
	HostKey, SessionID, Signature []byte
	Forwarding                    bool // the server itself will ask for signatures
}

// sessionBind returns the binding of this connection, nil where the first key exchange wasn't seen.
func (w *wire) sessionBind(sessionID []byte, forwarding bool) *sessionBind {
	reply := w.kex.reply.Load()
	if reply == nil {
		return nil
	}
	return &sessionBind{HostKey: reply.HostKey, SessionID: sessionID, Signature: reply.Signature, Forwarding: forwarding}
}

// bindAgent binds a connection to an agent. Agents that know nothing of it go on without, as in OpenSSH.
func bindAgent(cfg *Config, a agent.ExtendedAgent, bind *sessionBind) {
	if bind == nil {
		return
	}
	if _, err := a.Extension(bindExtension, ssh.Marshal(bind)); err != nil {
		cfg.Logf(2, "ssh_agent_bind_hostkey: %v", err)
		return
	}
	cfg.Logf(1, "bound agent to hostkey")
}

// agentConn is a connection to ssh-agent for the length of one authentication.
type agentConn struct {
	agent.ExtendedAgent
	conn net.Conn
	stop func() bool
}

// dialAgent connects to the agent's socket. The end of ctx cuts the connection, since an agent that
// waits for its user's consent answers late or never.
func dialAgent(ctx context.Context, socket string) (*agentConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return &agentConn{ExtendedAgent: agent.NewClient(conn), conn: conn, stop: stop}, nil
}

func (a *agentConn) close() {
	a.stop()
	a.conn.Close()
}

// signatureFlags asks an agent for the hash that an RSA algorithm names (draft-ietf-sshm-ssh-agent
// section 3.6.1); other keys have one algorithm.
func signatureFlags(algorithm string) agent.SignatureFlags {
	switch algorithm {
	case ssh.KeyAlgoRSASHA256:
		return agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		return agent.SignatureFlagRsaSha512
	}
	return 0
}

// forwardAgent joins a channel that the node opened to the local agent. Without a session that asked
// for it, such a channel is an attack (clientloop.c, client_request_agent).
func (c *Client) forwardAgent(nc ssh.NewChannel) {
	if !c.agentAllowed.Load() {
		c.cfg.Logf(-1, "Warning: ssh server tried agent forwarding.")
		c.cfg.Logf(-1, "Warning: this is probably a break-in attempt by a malicious server.")
		_ = nc.Reject(ssh.Prohibited, "agent forwarding was not requested")
		return
	}
	local, err := c.cfg.dialForwardedAgent()
	if err != nil {
		c.cfg.Logf(1, "agent: %v", err)
		_ = nc.Reject(ssh.ConnectionFailed, "no agent")
		return
	}
	// Without a Closer in it, the agent's client reads no more than its answer: the rest is the node's.
	bindAgent(&c.cfg, agent.NewClient(struct{ io.ReadWriter }{local}), c.wire.sessionBind(c.conn.SessionID(), true))
	defer local.Close()
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { ssh.DiscardRequests(reqs) })
	wg.Go(func() {
		// The node has said its last: the agent sees EOF and ends the other direction.
		_, _ = io.Copy(local, ch)
		if u, ok := local.(*net.UnixConn); ok {
			_ = u.CloseWrite()
		}
	})
	_, _ = io.Copy(ch, local)
	_ = ch.Close()
}

// dialForwardedAgent connects to the agent that sessions may have.
func (cfg *Config) dialForwardedAgent() (net.Conn, error) {
	return net.Dial("unix", cmp.Or(cfg.ForwardAgentSocket, cfg.AgentSocket))
}

// allowAgent notes that a session may have the agent, and reports whether the configuration agrees and there
// is one (ssh.c, check_agent_present).
func (c *Client) allowAgent() bool {
	if !c.cfg.ForwardAgent {
		return false
	}
	local, err := c.cfg.dialForwardedAgent()
	if err != nil {
		c.cfg.Logf(1, "agent: %v", err)
		return false
	}
	local.Close()
	c.agentAllowed.Store(true)
	return true
}
