package awsapi

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	smithymiddleware "github.com/aws/smithy-go/middleware"
)

// ErrSessionGone says that a session has ended for good: there is nothing to resume.
var ErrSessionGone = errors.New("the session has ended")

// ErrThrottled says that a call came too fast for the account's rate, and was not done.
var ErrThrottled = errors.New("too many calls")

// ErrUnavailable says that the service had a failure of its own: the same call may succeed a moment later.
var ErrUnavailable = errors.New("the service is unavailable")

// ErrNotConnected says that the node's agent is not online, or not yet: after a start it may take the
// service a minute or two to see it.
var ErrNotConnected = errors.New("the node is not connected")

// Session is what a data channel is opened with. The token is a secret.
type Session struct {
	ID        string
	StreamURL string
	Token     string
}

// String keeps the token out of anything printed.
func (s Session) String() string { return s.ID }

// StartInput is what a session is to be. Document and Reason may be empty.
type StartInput struct {
	Target     string // a managed node's id
	Document   string
	Parameters map[string][]string
	Reason     string // shown in the account's logs
}

// StartSession starts a session. The call is sent again only after an error that proves that no session
// was started. The error wraps ErrNotConnected when the node is offline, ErrThrottled when the account's
// rate is exceeded, ErrUnavailable when the service has failed, and ErrMayHaveStarted when a session may
// live.
func (c *Client) StartSession(ctx context.Context, in StartInput) (Session, error) {
	call := call{op: "start session", target: in.Target, operation: "StartSession", document: in.Document}
	cur := c.current()
	retryer := new(startRetryer)
	out, err := cur.api.StartSession(retryer.traced(ctx), &ssm.StartSessionInput{
		Target: aws.String(in.Target), DocumentName: optional(in.Document),
		Parameters: in.Parameters, Reason: optional(in.Reason),
	}, func(o *ssm.Options) { o.Retryer = retryer })
	if err != nil {
		call.uncertain = retryer.uncertain(err)
		return Session{}, c.explain(ctx, call, err)
	}
	c.observe(out.ResultMetadata)
	s := Session{aws.ToString(out.SessionId), aws.ToString(out.StreamUrl), aws.ToString(out.TokenValue)}
	if s.ID == "" || s.StreamURL == "" || s.Token == "" {
		call.uncertain = true
		return Session{}, c.explain(ctx, call, errIncompleteAnswer)
	}
	return s, nil
}

// ResumeSession returns a new token for a session whose websocket was lost. The error wraps
// ErrSessionGone when the session has ended.
func (c *Client) ResumeSession(ctx context.Context, id string) (Session, error) {
	call := call{op: "resume session", operation: "ResumeSession"}
	out, err := renewing(ctx, c, call, func(api *ssm.Client) (*ssm.ResumeSessionOutput, error) {
		return api.ResumeSession(ctx, &ssm.ResumeSessionInput{SessionId: aws.String(id)})
	})
	if err != nil {
		return Session{}, err
	}
	c.observe(out.ResultMetadata)
	s := Session{aws.ToString(out.SessionId), aws.ToString(out.StreamUrl), aws.ToString(out.TokenValue)}
	// A session that has ended is answered with success and an empty token (the official plugin's
	// sessionhandler.go, ResumeSessionHandler, reads it so).
	if s.Token == "" {
		return Session{}, c.explain(ctx, call, ErrSessionGone)
	}
	return s, nil
}

// terminateLimit bounds one TerminateSession, the SDK's repetitions included.
const terminateLimit = 5 * time.Second

// TerminateSession ends a session for good. AWS answers with success for a session that has ended
// already. The call has its own limit; that of ctx is for the wait until its turn, too.
func (c *Client) TerminateSession(ctx context.Context, id string) error {
	call := call{op: "terminate session", operation: "TerminateSession"}
	_, err := renewing(ctx, c, call, func(api *ssm.Client) (*ssm.TerminateSessionOutput, error) {
		ctx, cancel := context.WithTimeout(ctx, terminateLimit)
		defer cancel()
		return api.TerminateSession(ctx, &ssm.TerminateSessionInput{SessionId: aws.String(id)})
	})
	return err
}

// ConnectionStatus tells whether the node's agent is online: "connected" or "notconnected".
func (c *Client) ConnectionStatus(ctx context.Context, target string) (string, error) {
	call := call{op: "ask for the connection status", target: target, operation: "GetConnectionStatus"}
	out, err := renewing(ctx, c, call, func(api *ssm.Client) (*ssm.GetConnectionStatusOutput, error) {
		return api.GetConnectionStatus(ctx, &ssm.GetConnectionStatusInput{Target: aws.String(target)})
	})
	if err != nil {
		return "", err
	}
	return string(out.Status), nil
}

// renewing makes a call that does no harm when it is made twice, when its turn has come. When the
// credentials have expired it makes it once more with those that environment and files hold by now.
func renewing[T any](ctx context.Context, c *Client, call call, do func(*ssm.Client) (T, error)) (T, error) {
	out, err := paced(ctx, c, call, do)
	if err != nil && expired(err) {
		c.logf(1, "%s: %v; loading the credentials again", call.op, err)
		if c.reload(ctx) == nil {
			out, err = paced(ctx, c, call, do)
		}
	}
	if err != nil {
		var none T
		return none, c.explain(ctx, call, err)
	}
	return out, nil
}

// observe keeps what an answer tells about AWS's clock.
func (c *Client) observe(m smithymiddleware.Metadata) {
	if skew, ok := middleware.GetAttemptSkew(m); ok {
		c.skew.Store(int64(skew))
	}
}

// optional leaves an empty string out of a request: the service refuses empty ones.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
