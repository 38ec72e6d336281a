package sshproxy

import (
	"context"
	"fmt"
	"io"
)

// ForwardStdio has the node connect to an endpoint and copies both ways (-W), until both directions
// have ended, the node has closed the channel, or ctx is over and the node has answered to that. The
// streams belong to it: those that implement io.Closer are closed, also after an error. A stream that
// can block must be a Closer whose Close ends a blocked call. A refusal is an *ssh.OpenChannelError.
func (c *Client) ForwardStdio(ctx context.Context, to Endpoint, in io.Reader, out io.Writer) error {
	local := stdio{readerOnce{in, newStream(in)}, writerOnce{out, newStream(out)}}
	defer local.Close()
	if !to.valid() || to.nowhere() {
		return errForwardInvalid
	}
	ch, err := c.openDirect(ctx, to, nil)
	if err != nil {
		return fmt.Errorf("stdio forward to %s: %w", to, err)
	}
	relay(local, ch)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.Lost()
}

// stdio is a pair of streams as one end of a relay.
type stdio struct {
	io.Reader
	io.Writer
}

// CloseWrite closes the output.
func (s stdio) CloseWrite() error { return closeStream(s.Writer) }

// Close closes both, which ends a blocked read.
func (s stdio) Close() error {
	_ = closeStream(s.Writer) // it may be closed already
	return closeStream(s.Reader)
}

func closeStream(v any) error {
	if c, ok := v.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// readerOnce and writerOnce close a caller's stream once, however many find it at its end.
type (
	readerOnce struct {
		io.Reader
		end *stream
	}
	writerOnce struct {
		io.Writer
		end *stream
	}
)

func (r readerOnce) Close() error { r.end.Close(); return nil }
func (w writerOnce) Close() error { w.end.Close(); return nil }

// stdioPassenger is a stdio forward for a client that has lent us two descriptors (mux.c,
// mux_master_process_stdio_fwd). It ends with the client, and the client with it.
type stdioPassenger struct {
	server *muxServer
	id     uint32
	to     Endpoint
	local  stdio
}

func (p *stdioPassenger) run(ctx context.Context) {
	m := p.server.master
	defer p.server.conn.Close()
	defer p.local.Close()
	ch, err := m.client.openDirect(ctx, p.to, nil)
	if err != nil {
		m.cfg.Logf(1, "stdio forward: %v", err)
		_ = p.server.fail(p.id, reasonRefusedByPeer) // the client may have gone
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = p.local.Close() }) // the channel is closed too
	defer stop()
	if err := p.server.conn.send(&numberMessage{Kind: muxSessionOpened, ID: p.id, Number: m.nextSession()}); err != nil {
		_ = ch.Close() // nobody waits for it
		return
	}
	relay(p.local, ch)
}
