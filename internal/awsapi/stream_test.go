package awsapi

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/report"
)

const streamURL = "wss://ssmmessages.eu-central-1.amazonaws.com/v1/data-channel/me-0123?role=publish_subscribe&cell-number=AAEAA+b/c="

func TestSignStream(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	t.Setenv("AWS_SESSION_TOKEN", "session-token")
	c := newClient(t, Options{})
	header, err := c.SignStream(t.Context(), streamURL)
	if err != nil {
		t.Fatal(err)
	}
	auth := header.Get("Authorization")
	for _, part := range []string{"AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/", "/eu-central-1/ssmmessages/aws4_request", "SignedHeaders=host;x-amz-date;x-amz-security-token"} {
		if !strings.Contains(auth, part) {
			t.Errorf("%q lacks %q", auth, part)
		}
	}
	if header.Get("X-Amz-Date") == "" || header.Get("X-Amz-Security-Token") != "session-token" || len(header) != 3 {
		t.Errorf("headers %v", header)
	}
}

func TestPresignedStreamIsNotSigned(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	header, err := newClient(t, Options{}).SignStream(t.Context(), streamURL+"&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00")
	if err != nil || len(header) != 0 {
		t.Errorf("got %v, %v", header, err)
	}
}

func TestMalformedStreamURLStaysOutOfTheError(t *testing.T) {
	newFakeAPI(t, sessionAnswer())
	_, err := newClient(t, Options{}).SignStream(t.Context(), "wss://host/%zz?X-Amz-Signature=secret")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

// The websocket's signature must hold where this machine's clock doesn't.
func TestSignStreamUsesTheClockOfAWS(t *testing.T) {
	ahead := sessionAnswer()
	ahead.header = map[string]string{"Date": time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat)}
	newFakeAPI(t, ahead)
	c := newClient(t, Options{})
	if _, err := c.StartSession(t.Context(), StartInput{Target: "mi-1"}); err != nil {
		t.Fatal(err)
	}
	header, err := c.SignStream(t.Context(), streamURL)
	if err != nil {
		t.Fatal(err)
	}
	date, err := time.Parse("20060102T150405Z", header.Get("X-Amz-Date"))
	if err != nil || time.Until(date) < 119*time.Minute {
		t.Errorf("signed for %v, %v", date, err)
	}
}

// A call refused for its date is signed again by AWS's clock; nothing was started by the first.
func TestStartSessionCorrectsTheClockOnce(t *testing.T) {
	late := refusal(400, "InvalidSignatureException", "Signature expired: … is now earlier than …")
	late.header = map[string]string{"Date": time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}
	f := newFakeAPI(t, late, sessionAnswer())
	if _, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"}); err != nil {
		t.Fatal(err)
	}
	if n := len(f.called()); n != 2 {
		t.Errorf("%d calls", n)
	}
}

func TestStreamClientHasTheBundleAndHTTP1(t *testing.T) {
	f := newFakeAPI(t, sessionAnswer())
	f.answers = []answer{{after: func(r *http.Request) answer {
		return answer{status: 200, body: r.Proto}
	}}}
	resp, err := newClient(t, Options{}).HTTPClient().Get(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || strings.TrimSpace(string(body)) != `"HTTP/1.1"` {
		t.Errorf("got %s, %v", body, err)
	}
}

// proxyHelper makes the test binary a process that calls the API once: net/http reads the proxy
// variables once in a process.
const proxyHelper = "AWSAPI_TEST_PROXY_HELPER"

func startThroughProxy() int {
	ctx := context.Background()
	c, err := New(ctx, Options{Logf: report.Discard})
	if err == nil {
		_, err = c.StartSession(ctx, StartInput{Target: "mi-1"})
	}
	if err == nil {
		var resp *http.Response
		if resp, err = c.HTTPClient().Get(os.Getenv("AWS_ENDPOINT_URL_SSM")); err == nil {
			resp.Body.Close()
		}
	}
	fmt.Println(err)
	return 0
}

// connectProxy is an HTTP proxy that connects every name to one address.
type connectProxy struct {
	to      string
	status  int
	running sync.WaitGroup
	mu      sync.Mutex
	asked   []string
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	if p.status != http.StatusOK {
		w.WriteHeader(p.status)
		return
	}
	far, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	near, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		far.Close()
		return
	}
	p.mu.Lock() // the goroutines are counted before the client can be through
	defer p.mu.Unlock()
	p.running.Go(func() { io.Copy(far, near); far.Close() })
	p.running.Go(func() { io.Copy(near, far); near.Close() })
	io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n") //nolint:errcheck // the client sees it
}

func TestProxyServesBothAPIAndStream(t *testing.T) {
	tests := []struct {
		name   string
		status int
		asked  int
		want   string
	}{
		{"connects", http.StatusOK, 2, "<nil>"},
		{"refuses", http.StatusProxyAuthRequired, 1, `mi-1: start session: proxy PROXY answers "407 Proxy Authentication Required"; check HTTPS_PROXY and what the proxy lets through`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t, sessionAnswer())
			p := &connectProxy{to: f.Listener.Addr().String(), status: tt.status}
			server := httptest.NewServer(p)
			defer server.Close()
			t.Setenv(proxyHelper, "1")
			t.Setenv("HTTPS_PROXY", strings.Replace(server.URL, "http://", "http://user:secret@", 1))
			t.Setenv("AWS_ENDPOINT_URL_SSM", "https://example.com") // a name in the test certificate
			out, err := exec.Command(os.Args[0]).CombinedOutput()
			f.CloseClientConnections()
			p.mu.Lock()
			p.running.Wait()
			p.mu.Unlock()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			want := strings.Replace(tt.want, "PROXY", strings.TrimPrefix(server.URL, "http://"), 1)
			if got := strings.TrimSpace(string(out)); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if len(p.asked) != tt.asked || p.asked[0] != "CONNECT example.com:443" {
				t.Errorf("the proxy was asked %q", p.asked)
			}
		})
	}
}
