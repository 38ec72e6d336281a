package awsapi

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go/logging"
	smithymiddleware "github.com/aws/smithy-go/middleware"

	"ssm-ssh/internal/report"
)

const (
	// metadataLimit bounds the wait for the instance metadata service, which is asked last in the
	// chain of credentials: outside EC2 its address often swallows packets without an answer.
	metadataLimit = 2 * time.Second
	// answerLimit bounds the wait for an answer after a request was written. SSM answers in well
	// under a second; a load balancer cuts idle connections later than this.
	answerLimit = 15 * time.Second
	// idleLimit is how long a connection is kept for a next call. Calls come in bursts, at the beginning and
	// the end of a session; in between lie minutes or hours, in which a master of each of hundreds of nodes
	// would hold one for nothing.
	idleLimit = 4 * time.Second
	// cachedTLSSessions is how many hosts' TLS sessions are kept for resumption: API, gateway and
	// the services that credentials come from.
	cachedTLSSessions = 8
)

// Options choose the account's side. What is empty comes from the SDK's standard environment and
// files.
type Options struct {
	Region   string
	Profile  string // as --profile: it wins over keys in the environment
	Endpoint string // URL of the SSM API
	Target   string // what the user typed; error lines begin with it
	// Pace returns who gives the turns to call an operation, as seen by an account; nil has every call made
	// at once. StartSession is not among them: its caller gives its turns.
	Pace func(who Identity, operation string) Pacer
	Logf report.Logf
}

// Client calls AWS. It is safe for use by many goroutines.
type Client struct {
	opts Options
	logf report.Logf
	wait time.Duration // least delay after a call refused for its rate

	mu  sync.Mutex // guards cur
	cur *loaded

	// skew is what AWS's clock was ahead of ours in the last answer, in nanoseconds; the SDK
	// corrects the signatures of calls by it, SignStream that of the websocket.
	skew atomic.Int64
}

// loaded is the configuration as it was at one time. It is never changed.
type loaded struct {
	cfg    aws.Config
	api    *ssm.Client
	http   *http.Client // of the API
	stream *http.Client // of the websocket

	gateway *gateway // makes the connections of stream
}

// New loads configuration and credentials. It fails at once and with a hint when there is no region
// or no credentials; the calls to AWS that it makes are only those which the profile's kind of
// credentials needs.
func New(ctx context.Context, opts Options) (*Client, error) {
	c := &Client{opts: opts, logf: opts.Logf, wait: throttleFirst}
	if c.logf == nil {
		c.logf = report.Discard
	}
	cur, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	c.cur = cur
	return c, nil
}

// Region returns the region that calls go to.
func (c *Client) Region() string { return c.current().cfg.Region }

// Close lets go of idle connections. The client remains usable.
func (c *Client) Close() {
	cur := c.current()
	cur.http.CloseIdleConnections()
	cur.stream.CloseIdleConnections()
}

func (c *Client) current() *loaded {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cur
}

// reload reads environment and files again, since the credentials that a long-lived process began
// with expire and the user's tools write new ones. On failure the old state stays.
func (c *Client) reload(ctx context.Context) error {
	fresh, err := c.load(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cur.http.CloseIdleConnections()
	// The stream's client stays: a data channel holds on to it for life.
	fresh.stream, fresh.gateway = c.cur.stream, c.cur.gateway
	c.cur = fresh
	return nil
}

// load builds the configuration and proves that it has a region and credentials.
func (c *Client) load(ctx context.Context) (*loaded, error) {
	cfg, err := config.LoadDefaultConfig(ctx, c.loadOptions()...)
	if err != nil {
		return nil, c.explainLoad(ctx, err)
	}
	if cfg.Region == "" {
		return nil, &report.Error{Op: "load AWS configuration", Target: c.opts.Target, Err: errors.New("no region is set"),
			Hint: "set AWS_REGION, region in the profile, or name the node as mi-….REGION"}
	}
	if err := c.proveCredentials(ctx, cfg); err != nil {
		return nil, err
	}
	transport := cfg.HTTPClient.(*awshttp.BuildableClient).GetTransport()
	cur := new(loaded)
	cur.stream, cur.gateway = streamClient(transport)
	transport.ResponseHeaderTimeout = answerLimit
	cur.http = &http.Client{Transport: transport, CheckRedirect: noRedirect}
	cfg.HTTPClient = cur.http
	cur.cfg = cfg
	cur.api = ssm.NewFromConfig(cfg, func(o *ssm.Options) {
		if c.opts.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.opts.Endpoint)
		}
		if c.opts.Pace != nil {
			o.Retryer = unpacedRetryer{retry.NewStandard()}
		}
	})
	return cur, nil
}

func (c *Client) loadOptions() []func(*config.LoadOptions) error {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		// The proxy is net/http's own reading of the environment, which it makes at the first request.
		t.OnProxyConnectResponse = checkProxy
		t.IdleConnTimeout = idleLimit
		t.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(cachedTLSSessions)
	})
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(sdkLogger{c.logf}),
		config.WithAPIOptions([]func(*smithymiddleware.Stack) error{middleware.AddUserAgentKey("ssm-ssh")}),
	}
	if c.opts.Region != "" {
		options = append(options, config.WithRegion(c.opts.Region))
	}
	if c.opts.Profile != "" {
		options = append(options, config.WithSharedConfigProfile(c.opts.Profile))
	}
	return options
}

// proveCredentials gets the credentials, so that their absence is told apart from their refusal.
func (c *Client) proveCredentials(ctx context.Context, cfg aws.Config) error {
	limited := ctx
	if fromMetadata(cfg) {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, metadataLimit)
		defer cancel()
	}
	creds, err := cfg.Credentials.Retrieve(limited)
	if err != nil {
		return c.explainCredentials(ctx, cfg, err)
	}
	c.logf(1, "AWS region %s, credentials from %s", cfg.Region, creds.Source)
	return nil
}

// fromMetadata says whether the chain has ended at the instance metadata service.
func fromMetadata(cfg aws.Config) bool {
	p, ok := cfg.Credentials.(aws.CredentialProviderSource)
	return ok && slices.Contains(p.ProviderSources(), aws.CredentialSourceIMDS)
}

// sharedConfig returns the profile in use, as the SDK has read it.
func sharedConfig(cfg aws.Config) config.SharedConfig {
	for _, source := range cfg.ConfigSources {
		if shared, ok := source.(config.SharedConfig); ok {
			return shared
		}
	}
	return config.SharedConfig{}
}

// noRedirect hands a redirect to the caller as the answer: a signature is good for one host only.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// sdkLogger takes the SDK's own warnings, which would otherwise be written to stderr.
type sdkLogger struct{ logf report.Logf }

func (l sdkLogger) Logf(class logging.Classification, format string, args ...any) {
	l.logf(2, "aws sdk: "+string(class)+": "+format, args...)
}
