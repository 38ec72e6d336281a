package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
	"ssm-ssh/ssmchannel"
)

const (
	// defaultDocument is the one that IAM policies grant most widely; its session ends with sshd's
	// connection (docs/decisions/002).
	defaultDocument = "AWS-StartSSHSession"
	// startLimit bounds StartSession once it is on its way: its answer is waited for even when the
	// user has given up, since a session whose id is lost cannot be terminated.
	startLimit = 20 * time.Second
	// terminateLimit bounds TerminateSession at the end.
	terminateLimit = 5 * time.Second
	// firstByteLimit bounds the wait for sshd's first byte. A node on which nothing listens stays
	// silent for a minute, until its agent has given up on the worker.
	firstByteLimit = 15 * time.Second
)

// nodeConn is a data channel together with the SSM session below it: closing it ends both.
type nodeConn struct {
	net.Conn  // the channel, with its first byte watched
	channel   *ssmchannel.Conn
	host      string
	port      int
	resume    time.Duration // for how long a lost websocket is replaced
	api       *awsapi.Client
	logf      report.Logf
	closeOnce sync.Once
	closeErr  error
}

// dialNode starts a session on a node and opens its data channel. Whatever happens, a session that
// was started is terminated: here on failure, by Close afterwards.
func dialNode(ctx context.Context, node target.Target, opts *sshopt.Options, logf report.Logf) (net.Conn, error) {
	if node.NodeID == "" {
		return nil, &report.Error{Op: "find the node", Target: opts.Host, Err: fmt.Errorf("%q names no managed node", node.Name),
			Hint: "give its id, i-… or mi-…, as host or by SSMTarget"}
	}
	api, err := awsapi.New(ctx, awsapi.Options{
		Region: node.Region, Profile: node.Profile, Endpoint: opts.SSMEndpoint, Target: opts.Host, Logf: logf,
	})
	if err != nil {
		return nil, err
	}
	defer api.ConnectAhead(ctx)()
	session, err := startSession(ctx, api, node, opts)
	if err != nil {
		return nil, err
	}
	logf(1, "SSM session %s started", session.ID)
	channel, err := ssmchannel.Dial(ctx, ssmchannel.Session(session), channelConfig(api, opts, logf))
	if err != nil {
		terminate(api, session.ID, logf)
		return nil, dialError(ctx, opts.Host, err)
	}
	limit := firstByteLimit
	if opts.ConnectTimeout > 0 {
		limit = opts.ConnectTimeout
	}
	c := &nodeConn{channel: channel, host: opts.Host, port: opts.Port, resume: opts.SSMResume, api: api, logf: logf}
	c.Conn = newFirstByteConn(channel, limit, c.noSSHD(fmt.Errorf("no answer within %s", limit)))
	return c, nil
}

// noSSHD is the error of a node whose agent is there but whose sshd can't be reached.
func (c *nodeConn) noSSHD(cause error) error {
	return &report.Error{Op: fmt.Sprintf("reach sshd on port %d of the node", c.port), Target: c.host, Err: cause,
		Hint: "the agent is there, sshd may not be; is it running, and on this port (-p)?"}
}

// Read reads. Why the channel has ended comes out as the user's line, which the layers above carry
// within their own errors.
func (c *nodeConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, lostError(c.host, c.resume, err)
}

// linkDown reports that the websocket is lost and being replaced.
func (c *nodeConn) linkDown() bool { return !c.channel.Stats().LostSince.IsZero() }

// explain finds, for an SSH handshake that failed, a cause below it: the end of the data channel,
// or sshd's silence.
func (c *nodeConn) explain(err error) error {
	var line *report.Error
	var closed *ssmchannel.CloseError
	switch {
	case errors.As(c.channel.Err(), &closed):
		_, cause := closeCause(closed)
		return c.noSSHD(cause)
	case errors.As(err, &line):
		return line
	}
	return err
}

// startSession calls StartSession. Once begun the call isn't given up with ctx: the answer of a
// call that was cut short may hold a session that nobody would ever terminate.
func startSession(ctx context.Context, api *awsapi.Client, node target.Target, opts *sshopt.Options) (awsapi.Session, error) {
	if err := ctx.Err(); err != nil {
		return awsapi.Session{}, context.Cause(ctx)
	}
	in := awsapi.StartInput{
		Target: node.NodeID, Document: opts.SSMDocument, Reason: "ssm-ssh",
		Parameters: map[string][]string{"portNumber": {strconv.Itoa(opts.Port)}},
	}
	if in.Document == "" {
		in.Document = defaultDocument
	}
	calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
	defer cancel()
	session, err := api.StartSession(calling, in)
	if err != nil {
		return session, err
	}
	if ctx.Err() != nil {
		terminate(api, session.ID, report.Discard)
		return awsapi.Session{}, context.Cause(ctx)
	}
	return session, nil
}

// channelConfig hands the options and the account's side on to the data channel.
func channelConfig(api *awsapi.Client, opts *sshopt.Options, logf report.Logf) ssmchannel.Config {
	return ssmchannel.Config{
		HTTPClient: api.HTTPClient(),
		Sign:       api.SignStream,
		Resume: func(ctx context.Context, id string) (ssmchannel.Session, error) {
			session, err := api.ResumeSession(ctx, id)
			if errors.Is(err, awsapi.ErrSessionGone) {
				err = fmt.Errorf("%w: %w", ssmchannel.ErrSessionGone, err)
			}
			return ssmchannel.Session(session), err
		},
		ResumeFor:    resumeFor(opts.SSMResume),
		PingInterval: opts.SSMPingInterval,
		PayloadBytes: opts.SSMPayloadBytes,
		WindowBytes:  opts.SSMWindowBytes,
		Logf:         logf,
	}
}

// resumeFor turns the keyword's 0, no resume, into the data channel's negative.
func resumeFor(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// Close ends the data channel in order and then the session. TerminateSession is called even when
// the channel's own end was seen: it costs one call, and a session that stays costs the node a
// process.
func (c *nodeConn) Close() error {
	c.closeOnce.Do(func() {
		c.closeErr = c.channel.Close()
		terminate(c.api, c.channel.SessionID(), c.logf)
		c.api.Close()
	})
	return c.closeErr
}

// terminate calls TerminateSession, whatever became of the caller's context.
func terminate(api *awsapi.Client, id string, logf report.Logf) {
	ctx, cancel := context.WithTimeout(context.Background(), terminateLimit)
	defer cancel()
	if err := api.TerminateSession(ctx, id); err != nil {
		logf(-1, "%v", &report.Error{Op: "terminate session " + id, Err: err,
			Hint: "it ends at the idle time-out of the account's session preferences"})
		return
	}
	logf(1, "SSM session %s terminated", id)
}
