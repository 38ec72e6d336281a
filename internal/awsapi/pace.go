package awsapi

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// Pacer spreads the calls of one operation over all processes of a user. Turn and Refused wait, and tell
// waiting now and then how long it may still take; their error is that of ctx.
type Pacer interface {
	Turn(ctx context.Context, waiting func(time.Duration)) error
	Granted()
	Refused(ctx context.Context, waiting func(time.Duration)) error
}

// paced makes a call when its turn has come, again and again while it is refused for its rate and ctx lasts.
func paced[T any](ctx context.Context, c *Client, call call, do func(*ssm.Client) (T, error)) (T, error) {
	if c.opts.Pace == nil || call.service != "" {
		return do(c.current().api)
	}
	var none T
	who, err := c.Identity(ctx)
	if err != nil {
		return none, err
	}
	pacer := c.opts.Pace(who, call.operation)
	waiting := func(rest time.Duration) {
		c.logf(1, "%s: waiting about %v, at the account's rate", call.op, rest.Round(time.Second))
	}
	if err := pacer.Turn(ctx, waiting); err != nil {
		return none, err
	}
	for {
		out, err := do(c.current().api)
		if !isThrottled(err) {
			pacer.Granted()
			return out, err
		}
		if pacer.Refused(ctx, waiting) != nil {
			return out, err // which says more than that the time is over
		}
	}
}

// unpacedRetryer leaves calls that were refused for their rate to the pacer, which knows of the others.
type unpacedRetryer struct{ aws.RetryerV2 }

// IsErrorRetryable is asked after each failed attempt.
func (r unpacedRetryer) IsErrorRetryable(err error) bool {
	return !isThrottled(err) && r.RetryerV2.IsErrorRetryable(err)
}
