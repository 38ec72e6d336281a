package awsapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/url"
	"sync"
)

const (
	gatewayService = "ssmmessages" // in host names
	gatewayID      = "SSMMESSAGES" // in AWS_ENDPOINT_URL_SSMMESSAGES and in the profile's services
)

// gateway makes the TLS connections of websockets. One of them may be made ahead of its use.
type gateway struct {
	transport *http.Transport // whose dialer, TLS configuration and proxy hold

	mu    sync.Mutex
	ahead *ahead // nil: none, or taken
}

// ahead is a connection that nobody has asked for yet.
type ahead struct {
	addr string // host:port
	done chan struct{}
	conn net.Conn // set when done; nil: it could not be had
}

// ConnectAhead begins to connect to the gateway of data channels and returns at once. The first
// websocket of HTTPClient takes that connection when it leads to the same host and port. It takes two
// round trips, TCP and TLS, while StartSession takes three, and needs no credentials. Errors are
// silent: the websocket then dials for itself.
//
// Nothing is done when the host isn't known before StartSession tells it, as with an API endpoint
// of the user's own without AWS_ENDPOINT_URL_SSMMESSAGES, or when a proxy leads there. release closes
// a connection that wasn't taken.
func (c *Client) ConnectAhead(ctx context.Context) (release func()) {
	cur := c.current()
	addr := gatewayAddress(ctx, cur)
	if addr == "" || cur.gateway.proxied(addr) {
		return func() {}
	}
	c.logf(2, "connecting ahead to %s", addr)
	return cur.gateway.connect(ctx, addr)
}

// gatewayAddress returns the host and port where stream URLs will lead, "" when that isn't known.
func gatewayAddress(ctx context.Context, cur *loaded) string {
	endpoint, err := serviceEndpoint(ctx, cur.cfg, gatewayID)
	if err == nil && endpoint == "" && cur.api.Options().BaseEndpoint == nil {
		endpoint, err = regionalEndpoint(ctx, cur, gatewayService)
	}
	if err != nil {
		return ""
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "wss" || u.Hostname() == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// proxied says whether a proxy, or a faulty setting of one, stands before addr.
func (g *gateway) proxied(addr string) bool {
	if g.transport.Proxy == nil {
		return false
	}
	proxy, err := g.transport.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: addr}})
	return err != nil || proxy != nil
}

// connect begins a connection. release ends the attempt or closes its unused result, and waits.
func (g *gateway) connect(ctx context.Context, addr string) (release func()) {
	ctx, cancel := context.WithCancel(ctx)
	a := &ahead{addr: addr, done: make(chan struct{})}
	g.mu.Lock()
	g.ahead = a
	g.mu.Unlock()
	go func() { // release waits for it by done
		defer close(a.done)
		if conn, err := g.dial(ctx, "tcp", addr); err == nil {
			a.conn = conn
		}
	}()
	return func() {
		cancel()
		<-a.done
		if g.take(a) && a.conn != nil {
			a.conn.Close()
		}
	}
}

// take reports whether a was still there; now it is the caller's.
func (g *gateway) take(a *ahead) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a == nil || g.ahead != a {
		return false
	}
	g.ahead = nil
	return true
}

// dialTLS is the transport's DialTLSContext.
func (g *gateway) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	g.mu.Lock()
	a := g.ahead
	g.mu.Unlock()
	if a != nil && a.addr == addr {
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if g.take(a) && a.conn != nil {
			return a.conn, nil
		}
	}
	return g.dial(ctx, network, addr)
}

// dial does what the transport does for a host without DialTLSContext.
func (g *gateway) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := g.transport.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	config := g.transport.TLSClientConfig.Clone()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		config.ServerName = host
	}
	ctx, cancel := context.WithTimeout(ctx, g.transport.TLSHandshakeTimeout)
	defer cancel()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}
