package lab

import (
	"context"
	"net"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// Versions that choose the mode of a port session (port.go; plugin config.go).
const (
	muxSinceClient      = "1.1.70"     // muxSupportedClientVersion, this one included
	muxSinceAgent       = "3.0.196.0"  // TCPMultiplexingSupportedAfterThisAgentVersion, this one excluded
	keepAliveUpToClient = "1.2.331.0"  // muxKeepAliveDisabledAfterThisClientVersion, this one included
	keepAliveUpToAgent  = "3.1.1511.0" // TCPMultiplexingWithSmuxKeepAliveDisabledAfterThisAgentVersion, this one included
	sshPort             = "22"
)

// ownForwarding stands for the documents of port forwarding that users write.
const ownForwarding = "Lab-StartForwardingSession"

// servePort is the session code of port sessions (port.go: GetSession, Execute).
func (w *worker) servePort() error {
	properties := w.session.properties()
	forwarding := properties.Type == "LocalPortForwarding"
	if forwarding && compareVersions(w.hs.version, muxSinceClient) >= 0 &&
		compareVersions(w.lab.opts.AgentVersion, muxSinceAgent) > 0 {
		return w.serveMux()
	}
	return w.serveBasic(forwarding)
}

// dialPort connects to the port that the session is for. Port 22 of a node is its sshd, wherever
// on the loopback that listens.
func (w *worker) dialPort(ctx context.Context) (net.Conn, error) {
	p := w.session.properties()
	host, port := p.Host, p.PortNumber
	if host == "" {
		host = "localhost"
	}
	if host == "localhost" && port == sshPort {
		port = w.node.sshPort()
	}
	if !w.pause(w.lab.opts.Timing.PortDial) {
		return nil, context.Cause(ctx)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil && w.lab.opts.PortBuffer > 0 {
		err = tcp.SetWriteBuffer(w.lab.opts.PortBuffer)
	}
	return conn, err
}

// pump sends what it reads, at most one message per pace, until the source ends. While publication
// is paused it reads nothing.
func (w *worker) pump(read func([]byte) (int, error)) error {
	buf := make([]byte, payloadBytes)
	timer := time.NewTimer(pace)
	defer timer.Stop()
	for {
		if !w.out.awaitResumed(w.ctx) {
			return context.Cause(w.ctx)
		}
		n, err := read(buf)
		w.out.send(agentmsg.Output, buf[:n])
		if err != nil {
			return err
		}
		timer.Reset(pace)
		select {
		case <-timer.C:
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
}
