package awsapi

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	startAttempts  = 8           // of one StartSession, at most
	unsentAttempts = 3           // of them that never left: a wrong endpoint must not take a minute
	throttleFirst  = time.Second // the rate is counted per second
	unsentDelay    = 200 * time.Millisecond
)

// throttled are the codes that say that a call was refused for its rate, unseen by the service. A bare 503
// says less: whoever sends it may have passed the call on.
var throttled = []string{
	"ThrottlingException", "Throttling", "ThrottledException", "RequestThrottledException", "RequestThrottled",
	"RequestLimitExceeded", "TooManyRequestsException", "TooManyRequests",
}

// startRetryer decides whether StartSession may be sent again. The operation has no idempotency
// token: when the answer is lost a session may live that nobody knows of. So it is sent again only
// when the service has refused it for our clock, or when nothing of it has left us. A refusal for its
// rate is the caller's: others of the same account want to hear of it. There is one per call.
type startRetryer struct {
	aws.NopRetryer
	written atomic.Bool
	unsent  int
	skewed  bool
}

var _ aws.RetryerV2 = (*startRetryer)(nil)

// traced returns a context in which the retryer sees whether a request has begun to leave.
func (r *startRetryer) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaderField: func(string, []string) { r.written.Store(true) },
		WroteHeaders:     func() { r.written.Store(true) },
	})
}

// GetAttemptToken begins an attempt.
func (r *startRetryer) GetAttemptToken(context.Context) (func(error) error, error) {
	r.written.Store(false)
	return func(error) error { return nil }, nil
}

// MaxAttempts is the SDK's bound for the calls of one operation.
func (r *startRetryer) MaxAttempts() int { return startAttempts }

// IsErrorRetryable is asked once after each failed attempt.
func (r *startRetryer) IsErrorRetryable(err error) bool {
	if isThrottled(err) {
		return false
	}
	// The SDK marks a refused signature whose date was off, and signs by AWS's clock from then on.
	var marked interface{ RetryableError() bool }
	if errors.As(err, &marked) && marked.RetryableError() && answered(err) && !r.skewed {
		r.skewed = true
		return true
	}
	if r.written.Load() || !isTransient(err) {
		return false
	}
	r.unsent++
	return r.unsent < unsentAttempts
}

// RetryDelay has jitter.
func (r *startRetryer) RetryDelay(int, error) (time.Duration, error) {
	if r.unsent > 0 {
		return unsentDelay + rand.N(unsentDelay), nil
	}
	return 0, nil
}

// uncertain says whether a session may have been started although the call has failed.
func (r *startRetryer) uncertain(err error) bool {
	return r.written.Load() && !answered(err) && !isThrottled(err)
}

// isThrottled says whether the call was refused for its rate.
func isThrottled(err error) bool {
	var api smithy.APIError
	if errors.As(err, &api) && slices.Contains(throttled, api.ErrorCode()) {
		return true
	}
	return httpStatus(err) == http.StatusTooManyRequests
}

// answered says whether the service itself has refused the call.
func answered(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && httpStatus(err) != 0 && httpStatus(err) < http.StatusInternalServerError
}

// httpStatus returns the status of the answer behind an error, 0 when there was none.
func httpStatus(err error) int {
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		return response.HTTPStatusCode()
	}
	return 0
}

// isTransient says whether a connection that wasn't made may be made a moment later.
func isTransient(err error) bool {
	var dns *net.DNSError
	var proxy *proxyError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &certificate), errors.As(err, &proxy):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	var sending *smithyhttp.RequestSendError
	return errors.As(err, &sending)
}
