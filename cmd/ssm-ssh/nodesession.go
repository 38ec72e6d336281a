package main

import (
	"context"
	"errors"
	"fmt"
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
)

// nodeSession is an SSM session with its data channel and the connections in it. It lasts as long as
// anybody is in it.
type nodeSession struct {
	channel  *ssmchannel.Conn
	port     *ssmchannel.PortMux
	host     string
	sshPort  int           // 0 means that the document has it
	patience time.Duration // for sshd's first byte; 0 means firstByteLimit
	resume   time.Duration // for how long a lost websocket is replaced
	api      *awsapi.Client
	session  *ssmSession
	reaped   func() // ends the reaper

	mu     sync.Mutex
	within int // who is in it
}

// openSessionOn starts a session on a node and opens its data channel. The caller is in it, and leaves
// it in the end.
func openSessionOn(limit *connectLimit, node target.Target, opts *sshopt.Options, logf report.Logf) (*nodeSession, error) {
	if node.NodeID == "" {
		return nil, &report.Error{Op: "find the node", Target: opts.Host, Err: fmt.Errorf("%q names no managed node", node.Name),
			Hint: "give its id, i-… or mi-…, as host or by SSMTarget"}
	}
	s := &nodeSession{host: opts.Host, sshPort: sshdPort(opts), patience: opts.ConnectTimeout, resume: opts.SSMResume,
		reaped: reapInBackground(logf), within: 1}
	opened := false
	defer func() { // a panic comes by here too
		if !opened {
			s.close()
		}
	}()
	err := s.open(limit, node, opts, logf)
	opened = err == nil
	if err != nil {
		return nil, err
	}
	return s, nil
}

// open starts the session and opens its data channel. What it has begun when it fails is for close.
func (s *nodeSession) open(limit *connectLimit, node target.Target, opts *sshopt.Options, logf report.Logf) (err error) {
	ctx := limit.ctx
	s.api, err = awsapi.New(ctx, awsapi.Options{
		Region: node.Region, Profile: node.Profile, Endpoint: opts.SSMEndpoint, Target: opts.Host, Pace: pace, Logf: logf,
	})
	if err != nil {
		return err
	}
	defer s.api.ConnectAhead(ctx)()
	if s.session, err = startSession(limit, s.api, node, opts, logf); err != nil {
		return err
	}
	logf(1, "SSM session %s started", s.session.ID)
	cfg := channelConfig(s.api, node, opts, logf)
	cfg.End = s.session.end
	s.channel, err = ssmchannel.Dial(ctx, ssmchannel.Session(s.session.Session), cfg)
	if err != nil {
		return dialError(ctx, opts.Host, err)
	}
	if s.port, err = ssmchannel.StartPortMux(s.channel); err != nil {
		return &report.Error{Op: "open data channel", Target: opts.Host, Err: ownWords(err),
			Hint: "SSMDocument must name one that leads to a TCP port"}
	}
	return nil
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

// close ends the session in order, as far as it was begun: what was written is acknowledged, the agent is
// asked to terminate, TerminateSession is called (Config.End), the websocket is closed. That call is made
// even when the session's end was seen: it costs one call, and a session that stays costs the node a
// process.
func (s *nodeSession) close() {
	switch {
	case s.port != nil:
		s.port.Close() //nolint:errcheck // TerminateSession is what counts
	case s.channel != nil:
		s.channel.Close() //nolint:errcheck // as above
	case s.session != nil:
		s.session.end()
	}
	if s.api != nil {
		s.api.Close()
	}
	s.reaped()
}

// noSSHD is the error of a node whose agent is there but whose sshd can't be reached.
func (s *nodeSession) noSSHD(cause error) error {
	where := "the document's port"
	if s.sshPort > 0 {
		where = fmt.Sprintf("port %d", s.sshPort)
	}
	return &report.Error{Op: "reach sshd on " + where + " of the node", Target: s.host, Err: cause,
		Hint: "the agent is there, sshd may not be; is it running, and on this port (-p)?"}
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
		AnswerAhead:     opts.SSMAnswerAhead && documentOf(opts) == defaultDocument,
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
