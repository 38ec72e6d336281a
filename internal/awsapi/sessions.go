package awsapi

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// ErrMayHaveStarted says of a failed StartSession that a session may live all the same, of which nothing
// but the reason is known.
var ErrMayHaveStarted = errors.New("a session may have been started")

// Identity is what tells one account's API from another, as far as that is known without a call.
type Identity struct {
	Region      string
	Endpoint    string // URL of the SSM API; empty: the region's own
	AccessKeyID string
}

// Identity returns what calls are made with at present.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	cur := c.current()
	creds, err := cur.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return Identity{}, c.explainCredentials(ctx, cur.cfg, err)
	}
	return Identity{cur.cfg.Region, aws.ToString(cur.api.Options().BaseEndpoint), creds.AccessKeyID}, nil
}

// SessionInfo is a session as the account's list has it.
type SessionInfo struct {
	ID, Target, Owner, Status, Document, Reason string
	Started                                     time.Time
}

// SessionQuery picks sessions; what is empty isn't asked for.
type SessionQuery struct{ ID, Target string }

func (q SessionQuery) filters() []types.SessionFilter {
	var filters []types.SessionFilter
	for key, value := range map[types.SessionFilterKey]string{types.SessionFilterKeySessionId: q.ID, types.SessionFilterKeyTargetId: q.Target} {
		if value != "" {
			filters = append(filters, types.SessionFilter{Key: key, Value: aws.String(value)})
		}
	}
	return filters
}

// ActiveSessions lists the sessions in the account and region that have not ended, all pages of them. Those
// that were started a moment ago may be missing.
func (c *Client) ActiveSessions(ctx context.Context, q SessionQuery) ([]SessionInfo, error) {
	call := call{op: "list sessions", operation: "DescribeSessions"}
	var all []SessionInfo
	for token := (*string)(nil); ; {
		out, err := renewing(ctx, c, call, func(api *ssm.Client) (*ssm.DescribeSessionsOutput, error) {
			return api.DescribeSessions(ctx, &ssm.DescribeSessionsInput{State: types.SessionStateActive, Filters: q.filters(), NextToken: token})
		})
		if err != nil {
			return nil, err
		}
		for _, s := range out.Sessions {
			all = append(all, SessionInfo{aws.ToString(s.SessionId), aws.ToString(s.Target), aws.ToString(s.Owner), string(s.Status),
				aws.ToString(s.DocumentName), aws.ToString(s.Reason), aws.ToTime(s.StartDate)})
		}
		if token = out.NextToken; aws.ToString(token) == "" {
			return all, nil
		}
	}
}

// Caller returns the ARN of who calls, which is the Owner of the sessions that it starts.
func (c *Client) Caller(ctx context.Context) (string, error) {
	call := call{op: "ask who the caller is", service: "sts", operation: "GetCallerIdentity"}
	out, err := renewing(ctx, c, call, func(*ssm.Client) (*sts.GetCallerIdentityOutput, error) {
		return sts.NewFromConfig(c.current().cfg).GetCallerIdentity(ctx, nil)
	})
	if err != nil {
		return "", err
	}
	return aws.ToString(out.Arn), nil
}
