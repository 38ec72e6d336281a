package main

import (
	"context"
	"errors"
	"fmt"
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
	// remoteHostDocument leads to a port of another host, which the node connects to.
	remoteHostDocument = "AWS-StartPortForwardingSessionToRemoteHost"
	// startLimit bounds StartSession once it is on its way: its answer is waited for even when the
	// user has given up, since a session whose id is lost cannot be terminated.
	startLimit = 20 * time.Second
	// terminateLimit bounds TerminateSession at the end.
	terminateLimit = 5 * time.Second
)

// nodeSession is an SSM session with its data channel and the connections in it. It lasts as long as
// anybody is in it.
type nodeSession struct {
	channel  *ssmchannel.Conn
	port     *ssmchannel.PortMux
	host     string
	sshPort  int
	patience time.Duration // for sshd's first byte; 0 means firstByteLimit
	resume   time.Duration // for how long a lost websocket is replaced
	api      *awsapi.Client
	logf     report.Logf

	mu     sync.Mutex
	within int // who is in it
}

// openSessionOn starts a session on a node and opens its data channel. The caller is in it, and leaves
// it in the end.
func openSessionOn(ctx context.Context, node target.Target, opts *sshopt.Options, logf report.Logf) (*nodeSession, error) {
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
	channel, err := ssmchannel.Dial(ctx, ssmchannel.Session(session), channelConfig(api, node, opts, logf))
	if err != nil {
		terminate(api, session.ID, logf)
		return nil, dialError(ctx, opts.Host, err)
	}
	s := &nodeSession{channel: channel, host: opts.Host, sshPort: opts.Port, patience: opts.ConnectTimeout, resume: opts.SSMResume,
		api: api, logf: logf, within: 1}
	if s.port, err = ssmchannel.StartPortMux(channel); err != nil {
		s.close()
		return nil, &report.Error{Op: "open data channel", Target: opts.Host, Err: ownWords(err),
			Hint: "SSMDocument must name one that leads to a TCP port"}
	}
	return s, nil
}

// enter joins a session that has not ended.
func (s *nodeSession) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.within == 0 {
		return false
	}
	s.within++
	return true
}

// leave ends the session when nobody is left in it.
func (s *nodeSession) leave() {
	s.mu.Lock()
	s.within--
	last := s.within == 0
	s.mu.Unlock()
	if last {
		s.close()
	}
}

// close ends the data channel in order and then the session. TerminateSession is called even when
// the channel's own end was seen: it costs one call, and a session that stays costs the node a
// process.
func (s *nodeSession) close() {
	if s.port != nil {
		s.port.Close() //nolint:errcheck // TerminateSession is what counts
	} else {
		s.channel.Close() //nolint:errcheck // as above
	}
	terminate(s.api, s.channel.SessionID(), s.logf)
	s.api.Close()
}

// noSSHD is the error of a node whose agent is there but whose sshd can't be reached.
func (s *nodeSession) noSSHD(cause error) error {
	return &report.Error{Op: fmt.Sprintf("reach sshd on port %d of the node", s.sshPort), Target: s.host, Err: cause,
		Hint: "the agent is there, sshd may not be; is it running, and on this port (-p)?"}
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
	if host := remoteHost(opts); host != "" {
		in.Parameters["host"] = []string{host}
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

// remoteHost is the host that the document leads to beyond the node; "" where it leads to the node. A
// host that is the node's own name is the node, whose agent knows itself by another.
func remoteHost(opts *sshopt.Options) string {
	if opts.SSMDocument != remoteHostDocument {
		return ""
	}
	if _, isNode := target.Parse(opts.Host); isNode {
		return "localhost"
	}
	return opts.Host
}

// channelConfig hands the options and the account's side on to the data channel. Every session gets
// what encryption takes, though sessions to a port are never encrypted: whether a key is wanted is the
// agent's to say, and KMS is not called before it does.
func channelConfig(api *awsapi.Client, node target.Target, opts *sshopt.Options, logf report.Logf) ssmchannel.Config {
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
		GenerateDataKey: api.GenerateDataKey, TargetID: node.NodeID,
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
