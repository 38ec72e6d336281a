package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/xtaci/smux"
	"golang.org/x/sys/unix"

	"ssm-ssh/ssmchannel/agentmsg"
)

// muxPort is a session that carries smux version 1 for many TCP connections (port_mux.go). A
// socket pair lies between the data channel and the smux server, as in the agent, so that its
// buffers are the backpressure.
type muxPort struct {
	worker     *worker
	wire       net.Conn // our end of the pair: the bytes of the data channel
	terminated chan struct{}
	copies     sync.WaitGroup
}

// serveMux returns nil when the client has ended the session.
func (w *worker) serveMux() error {
	wire, inner, err := socketPair()
	if err != nil {
		return err
	}
	defer wire.Close()
	config := smux.DefaultConfig()
	// Agents that old have no switch for it.
	config.KeepAliveDisabled = compareVersions(w.hs.version, keepAliveUpToClient) > 0 &&
		compareVersions(w.lab.opts.AgentVersion, keepAliveUpToAgent) > 0
	session, err := smux.Server(inner, config)
	if err != nil {
		inner.Close()
		return fmt.Errorf("starting smux: %w", err)
	}
	p := &muxPort{worker: w, wire: wire, terminated: make(chan struct{})}
	defer p.copies.Wait()
	defer session.Close()
	accepted := make(chan struct{})
	w.parts.Go(func() { w.pump(wire.Read) })
	w.parts.Go(func() {
		defer close(accepted)
		p.accept(session)
	})
	w.setHandler(p)
	select {
	case <-accepted:
		return errors.New("smux session ended")
	case <-p.terminated:
		return nil
	case <-w.cancel:
		return errCancelled
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// accept serves the streams. It dials within the loop, so that one slow destination delays every
// later stream (port_mux.go: handleServerConnections).
func (p *muxPort) accept(session *smux.Session) {
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return
		}
		conn, err := p.worker.dialPort(p.worker.ctx)
		if err != nil {
			p.worker.out.send(agentmsg.FlagPayload, agentmsg.AppendFlag(nil, agentmsg.ConnectToPortError))
			stream.Close()
			continue
		}
		p.copies.Go(func() { join(stream, conn) })
	}
}

// join copies both ways and closes both ends when either direction is over: the agent knows no
// half close (port_mux.go: handleDataTransfer).
func join(stream, conn net.Conn) {
	var copies sync.WaitGroup
	one := func(to, from net.Conn) {
		io.Copy(to, from)
		to.Close()
		from.Close()
	}
	copies.Go(func() { one(conn, stream) })
	copies.Go(func() { one(stream, conn) })
	copies.Wait()
}

// input feeds the smux server; while its buffers are full, the worker reads nothing.
func (p *muxPort) input(payloadType agentmsg.PayloadType, payload []byte) error {
	switch payloadType {
	case agentmsg.Output:
		_, err := p.wire.Write(payload)
		return err
	case agentmsg.FlagPayload:
		if flag, err := agentmsg.ParseFlag(payload); err != nil || flag != agentmsg.TerminateSession {
			return err
		}
		select {
		case p.terminated <- struct{}{}:
		case <-p.worker.ctx.Done():
		}
	}
	return nil
}

// socketPair returns two connected unix sockets.
func socketPair() (a, b net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	if a, err = fileConn(fds[0]); err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	if b, err = fileConn(fds[1]); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// fileConn takes over fd, on failure too.
func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "socketpair")
	defer f.Close()
	return net.FileConn(f)
}
