package sshproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"ssm-ssh/internal/fdpass"
)

// backlogRetry is the pause before a client tries a master again whose queue of clients is full.
const backlogRetry = 5 * time.Millisecond

// MuxClient is a control connection to a living master, ours or OpenSSH's. It makes one request at a
// time and becomes a MuxSession's with NewSession.
type MuxClient struct {
	conn       *muxConn
	extensions []Extension
	id         uint32 // of the next request: from 0, one more after each answer
	pid        int    // 0: not asked yet
}

// DialMux connects to the control socket and exchanges HELLOs; the end of ctx bounds both. Errors are
// TextErrors whose cause says more: fs.ErrNotExist where there is no socket, syscall.ECONNREFUSED for
// one that a dead master left, ErrMasterGone where the master ended meanwhile, the end of ctx where
// it kept silent. The extensions go into our HELLO.
func DialMux(ctx context.Context, path string, extensions ...Extension) (*MuxClient, error) {
	if err := checkControlPath(path); err != nil {
		return nil, err
	}
	conn, err := dialControl(ctx, path)
	if err != nil {
		return nil, connectError(path, err)
	}
	c := &MuxClient{conn: newMuxConn(conn)}
	if err := c.hello(ctx, extensions); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// dialControl connects. A socket whose queue is full says EAGAIN to those who don't block in
// connect(2) (unix(7)); OpenSSH's client waits there, and so do we.
func dialControl(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(backlogRetry):
		}
	}
}

// bounded runs f and ends its waits with ctx.
func (c *MuxClient) bounded(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetDeadline(time.Unix(1, 0)) // fails only when the connection is closed
	})
	defer stop()
	err := f()
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (c *MuxClient) hello(ctx context.Context, extensions []Extension) error {
	var m muxMessage
	var frame []byte
	err := c.bounded(ctx, func() (err error) {
		if err := c.conn.send(&helloMessage{Version: muxVersion, Extensions: extensions}); err != nil {
			return err
		}
		if frame, err = c.conn.receive(); err != nil {
			return err
		}
		m, err = decodeReply(frame)
		return err
	})
	if err != nil {
		return helloError("", err)
	}
	h, ok := m.(*helloMessage)
	if !ok {
		return helloError("mux_client_hello_exchange: "+textNoHello(frame), errMalformed)
	}
	if h.Version != muxVersion {
		return helloError(fmt.Sprintf("Unsupported multiplexing protocol version %d (expected %d)", h.Version, muxVersion), errMalformed)
	}
	c.extensions = h.Extensions
	return nil
}

// HandOver tells the master variables of our environment, NAME=value, if it has offered to take
// them: a master of OpenSSH's is told nothing, since they may be secrets. There is no answer.
func (c *MuxClient) HandOver(ctx context.Context, env []string) error {
	if !c.offers(environmentExtension) {
		return nil
	}
	err := c.bounded(ctx, func() error { return c.conn.send(&environmentMessage{Env: env}) })
	if err != nil {
		return helloError("", err)
	}
	return nil
}

// offers tells whether the master's HELLO had a pair of that name.
func (c *MuxClient) offers(name string) bool {
	return slices.ContainsFunc(c.extensions, func(e Extension) bool { return e.Name == name })
}

// Extensions returns what the master's HELLO offered.
func (c *MuxClient) Extensions() []Extension { return c.extensions }

// Close ends the control connection. A session on it goes on at the node as if ssh had died.
func (c *MuxClient) Close() error { return c.conn.Close() }

// request sends m with files after it and returns the reply, refusals as errors.
func (c *MuxClient) request(ctx context.Context, m muxMessage, words requestWords, files ...*os.File) (muxMessage, error) {
	var reply muxMessage
	err := c.bounded(ctx, func() error {
		if err := c.conn.send(m); err != nil {
			return err
		}
		if err := fdpass.Send(c.conn.UnixConn, files...); err != nil {
			return err
		}
		frame, err := c.conn.receive()
		if err != nil {
			return err
		}
		reply, err = decodeReply(frame)
		return err
	})
	if err != nil {
		return nil, &TextError{Text: words.read, Err: goneError(err)}
	}
	id, answered := c.id, uint32(0)
	c.id++
	switch r := reply.(type) {
	case *plainMessage:
		answered = r.ID
	case *numberMessage:
		answered = r.ID
	case *infoReplyMessage:
		answered = r.ID
	case *refusalMessage:
		answered = r.ID
	default:
		return nil, &TextError{Text: words.read, Err: errMalformed}
	}
	if answered != id {
		return nil, &TextError{Text: fmt.Sprintf("mux_client_request: out of sequence reply: my id %d theirs %d", id, answered), Err: errMalformed}
	}
	if r, ok := reply.(*refusalMessage); ok {
		return nil, words.refused(r)
	}
	return reply, nil
}

// expect returns the number in a reply of the kind wanted.
func expect(reply muxMessage, kind muxKind) (uint32, error) {
	switch r := reply.(type) {
	case *numberMessage:
		if r.Kind == kind {
			return r.Number, nil
		}
	case *plainMessage:
		if r.Kind == kind {
			return 0, nil
		}
	}
	return 0, fmt.Errorf("%w: reply of another kind", errMalformed)
}

// Check asks whether the master lives and returns its process id.
func (c *MuxClient) Check(ctx context.Context) (pid int, err error) {
	reply, err := c.request(ctx, &plainMessage{Kind: muxAliveCheck, ID: c.id}, wordsAlive)
	if err != nil {
		return 0, err
	}
	number, err := expect(reply, muxAlive)
	if err != nil {
		return 0, &TextError{Text: wordsAlive.read, Err: err}
	}
	c.pid = int(number)
	return c.pid, nil
}

// Stop asks the master to take no more clients and to end after those it has.
func (c *MuxClient) Stop(ctx context.Context) error {
	reply, err := c.request(ctx, &plainMessage{Kind: muxStopListening, ID: c.id}, wordsStop)
	if err != nil {
		return err
	}
	_, err = expect(reply, muxOK)
	return err
}

// Exit asks the master to end at once, with all that runs through it. OpenSSH's ends without a word,
// which counts as a yes.
func (c *MuxClient) Exit(ctx context.Context) error {
	reply, err := c.request(ctx, &plainMessage{Kind: muxTerminate, ID: c.id}, wordsTerminate)
	if errors.Is(err, ErrMasterGone) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = expect(reply, muxOK)
	return err
}

// infoExtension is offered by masters that answer to Info: those of OpenSSH 10 (mux.c, the "info" extension).
const infoExtension = "info"

// Info asks a master about its "connection" or its "channels" and returns the text for the user. Masters
// before OpenSSH's 10, and ours, don't offer that.
func (c *MuxClient) Info(ctx context.Context, what string) (string, error) {
	if !c.offers(infoExtension) {
		return "", &TextError{Text: textNoInfo}
	}
	reply, err := c.request(ctx, &infoRequestMessage{ID: c.id, What: what}, wordsInfo)
	if err != nil {
		return "", err
	}
	info, ok := reply.(*infoReplyMessage)
	if !ok {
		return "", &TextError{Text: wordsInfo.read, Err: errMalformed}
	}
	return info.Text, nil
}

// OpenForward asks the master for a forward and returns the port that the node has chosen for a remote
// port 0.
func (c *MuxClient) OpenForward(ctx context.Context, fwd Forward) (port int, err error) {
	reply, err := c.request(ctx, forwardRequest(muxOpenForward, c.id, fwd), wordsForward)
	if err != nil {
		return 0, err
	}
	if fwd.Kind != ForwardRemote || fwd.Listen.Port != 0 || fwd.Listen.Path != "" {
		_, err := expect(reply, muxOK)
		return 0, err
	}
	number, err := expect(reply, muxRemotePort)
	return int(number), err
}

// CancelForward asks the master to end a forward.
func (c *MuxClient) CancelForward(ctx context.Context, fwd Forward) error {
	reply, err := c.request(ctx, forwardRequest(muxCloseForward, c.id, fwd), wordsForward)
	if err != nil {
		return err
	}
	_, err = expect(reply, muxOK)
	return err
}

// NewStdioForward asks the master for a connection from the node to an endpoint (-W). The files are
// lent as in NewSession. The session's Wait returns at the end, without a status.
func (c *MuxClient) NewStdioForward(ctx context.Context, to Endpoint, stdin, stdout *os.File) (*MuxSession, error) {
	if c.pid == 0 {
		if _, err := c.Check(ctx); err != nil {
			return nil, err
		}
	}
	host, port := wireEndpoint(to)
	reply, err := c.request(ctx, &stdioMessage{ID: c.id, Host: host, Port: port}, wordsStdio, stdin, stdout)
	if err != nil {
		return nil, err
	}
	id, err := expect(reply, muxSessionOpened)
	if err != nil {
		return nil, &TextError{Text: wordsStdio.read, Err: err}
	}
	return &MuxSession{client: c, id: id}, nil
}

// Hold keeps the control connection until the master ends it or ctx is over: for a client that wants
// no session (-N), where OpenSSH's would start a shell.
func (c *MuxClient) Hold(ctx context.Context) error {
	err := c.bounded(ctx, func() error {
		_, err := c.conn.receive()
		return err
	})
	if err == nil {
		return errMalformed // nothing was asked, so there is nothing to say
	}
	return goneError(err)
}

// gone reports whether err is the ordinary end of a control connection.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
