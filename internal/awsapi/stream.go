package awsapi

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"ssm-ssh/internal/report"
)

const (
	// streamService is the name that stream URLs are signed for (the official plugin's config.go,
	// ServiceName).
	streamService = "ssmmessages"
	// emptyPayload is SHA-256 of nothing: the websocket's GET has no body.
	emptyPayload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// streamClient makes the client of the websocket from the transport of the API: the same roots and
// proxies, but HTTP/1.1 only, since the upgrade (RFC 6455 section 4.1) needs it, and no limit on the
// time until the answer, which is the caller's to set.
func streamClient(api *http.Transport) (*http.Client, *gateway) {
	transport := api.Clone()
	transport.ForceAttemptHTTP2 = false
	// Clone has set the original up for HTTP/2, and these two came along.
	transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	transport.TLSNextProto = nil
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	g := &gateway{transport: transport}
	transport.DialTLSContext = g.dialTLS
	return &http.Client{Transport: transport, CheckRedirect: noRedirect}, g
}

// HTTPClient returns the client for the websocket: AWS_CA_BUNDLE's roots, the environment's proxies,
// HTTP/1.1. It follows no redirects and has no time limit of its own.
func (c *Client) HTTPClient() *http.Client { return c.current().stream }

// SignStream returns the headers of Signature Version 4 for the upgrade request to a stream URL,
// made with the credentials of this moment. A presigned URL gets none: its signature is in the
// query. The URL itself is the caller's to use byte for byte.
func (c *Client) SignStream(ctx context.Context, streamURL string) (http.Header, error) {
	cur := c.current()
	req, err := http.NewRequest(http.MethodGet, streamURL, nil)
	if err != nil {
		return nil, &report.Error{Op: "sign stream URL", Err: malformed(err)}
	}
	if isPresigned(req.URL) {
		return nil, nil
	}
	if req.URL.Scheme == "wss" {
		req.URL.Scheme = "https" // the signer drops a default port by the scheme
	}
	creds, err := cur.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, c.explainCredentials(ctx, cur.cfg, err)
	}
	now := time.Now().Add(time.Duration(c.skew.Load()))
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, emptyPayload, streamService, cur.cfg.Region, now); err != nil {
		return nil, &report.Error{Op: "sign stream URL", Err: err}
	}
	return req.Header, nil
}

// isPresigned knows a URL that carries its signature (Signature Version 4, query parameters).
func isPresigned(u *url.URL) bool {
	q := u.Query()
	return q.Has("X-Amz-Signature") || q.Has("X-Amz-Algorithm")
}

// malformed strips the URL, which may hold a signature, from a parser's error.
func malformed(err error) error {
	if parsing, ok := err.(*url.Error); ok {
		return parsing.Err
	}
	return err
}

// proxyError is a proxy's refusal to connect us.
type proxyError struct {
	proxy  string // host and port, never the password that may stand before them
	status string
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("proxy %s answers %q", e.proxy, e.status)
}

// checkProxy turns the refusal into an error of its own type; net/http's has none.
func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy: proxy.Host, status: answer.Status}
}
