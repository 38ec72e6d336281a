package awsapi

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// countedServer is a TLS server with the certificate of every httptest server, so that a fake API's
// bundle holds for it. It counts connections by their state.
type countedServer struct {
	*httptest.Server
	mu     sync.Mutex
	opened int
	closed chan struct{} // one for each connection that has ended
}

func newCountedServer(t *testing.T) *countedServer {
	t.Helper()
	s := &countedServer{closed: make(chan struct{}, 8)} // more than any test opens
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.opened++
		case http.StateClosed:
			s.closed <- struct{}{}
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *countedServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

func (s *countedServer) get(t *testing.T, client *http.Client) {
	t.Helper()
	resp, err := client.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "HTTP/1.1" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestConnectAheadIsTakenOnce(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	gateway := newCountedServer(t)
	t.Setenv("AWS_ENDPOINT_URL_SSMMESSAGES", gateway.URL)
	c := newClient(t, Options{})
	release := c.ConnectAhead(t.Context())
	gateway.get(t, c.HTTPClient())
	if n := gateway.connections(); n != 1 {
		t.Errorf("%d connections, want the one made ahead", n)
	}
	release()
	gateway.get(t, c.HTTPClient()) // on the same connection: release has left it alone
	c.HTTPClient().CloseIdleConnections()
	<-gateway.closed
	gateway.get(t, c.HTTPClient())
	if n := gateway.connections(); n != 2 {
		t.Errorf("%d connections, want a second one", n)
	}
}

func TestConnectAheadIsDroppedWhenTheStreamIsElsewhere(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	guess, gateway := newCountedServer(t), newCountedServer(t)
	t.Setenv("AWS_ENDPOINT_URL_SSMMESSAGES", guess.URL)
	c := newClient(t, Options{})
	release := c.ConnectAhead(t.Context())
	gateway.get(t, c.HTTPClient())
	release()
	if guess.connections() > 0 {
		<-guess.closed
	}
	if n := gateway.connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestConnectAheadFailsSilently(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	gateway := newCountedServer(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	t.Setenv("AWS_ENDPOINT_URL_SSMMESSAGES", "https://"+gone.Addr().String())
	c := newClient(t, Options{})
	defer c.ConnectAhead(t.Context())()
	gateway.get(t, c.HTTPClient())
}

// A gateway that accepts and then says nothing must not hold up the end of a call that has failed.
func TestConnectAheadEndsAtOnce(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	t.Setenv("AWS_ENDPOINT_URL_SSMMESSAGES", "https://"+silent.Addr().String())
	c := newClient(t, Options{})
	release := c.ConnectAhead(t.Context())
	within(t, time.Second, release)

	release = c.ConnectAhead(t.Context())
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	within(t, time.Second, func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+silent.Addr().String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := c.HTTPClient().Do(req); err == nil {
			resp.Body.Close()
			t.Error("an answer from nobody")
		}
	})
}

func TestGatewayAddress(t *testing.T) {
	tests := []struct {
		name    string
		env     map[string]string
		profile string
		want    string
	}{
		{"region's own", nil, "", "ssmmessages.eu-central-1.amazonaws.com:443"},
		{"another partition", map[string]string{"AWS_REGION": "cn-north-1"}, "", "ssmmessages.cn-north-1.amazonaws.com.cn:443"},
		{"FIPS", map[string]string{"AWS_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "true"}, "", "ssmmessages-fips.us-east-1.amazonaws.com:443"},
		{"dual stack", map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "", "ssmmessages.eu-central-1.api.aws:443"},
		{"API elsewhere", map[string]string{"AWS_ENDPOINT_URL_SSM": "https://api.example"}, "", ""},
		{"all elsewhere", map[string]string{"AWS_ENDPOINT_URL": "https://all.example"}, "", ""},
		{"set", map[string]string{"AWS_ENDPOINT_URL_SSM": "https://api.example", "AWS_ENDPOINT_URL_SSMMESSAGES": "https://gateway.example:8443/x"}, "", "gateway.example:8443"},
		{"set in the profile", nil, "[default]\nservices = s\n[services s]\nssmmessages =\n  endpoint_url = https://gateway.example\n", "gateway.example:443"},
		{"settings ignored", map[string]string{"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL_SSMMESSAGES": "https://gateway.example"}, "", "ssmmessages.eu-central-1.amazonaws.com:443"},
		{"without TLS", map[string]string{"AWS_ENDPOINT_URL_SSMMESSAGES": "http://gateway.example"}, "", ""},
		{"malformed", map[string]string{"AWS_ENDPOINT_URL_SSMMESSAGES": "https://%zz"}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			t.Setenv("AWS_REGION", "eu-central-1")
			t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			profiles(t, tt.profile)
			if got := gatewayAddress(t.Context(), newClient(t, Options{}).current()); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNothingIsConnectedAheadThroughAProxy(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	gateway := newCountedServer(t)
	t.Setenv("AWS_ENDPOINT_URL_SSMMESSAGES", gateway.URL)
	c := newClient(t, Options{})
	g := c.current().gateway
	g.transport = g.transport.Clone()
	g.transport.Proxy = http.ProxyURL(nil)
	if g.proxied("gateway.example:443") {
		t.Error("no proxy taken for one")
	}
	g.transport.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://proxy.example:3128") }
	c.ConnectAhead(t.Context())()
	if n := gateway.connections(); n != 0 {
		t.Errorf("%d connections past the proxy", n)
	}
}
