package awsapi

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(proxyHelper) != "" {
		os.Exit(startThroughProxy())
	}
	goleak.VerifyTestMain(m)
}

// answer is what the fake API says to one call.
type answer struct {
	status int
	body   any                            // JSON
	do     func(http.ResponseWriter)      // instead of an answer
	header map[string]string              // on top
	after  func(*http.Request) (a answer) // computed
}

func refusal(status int, code, message string) answer {
	return answer{status: status, body: map[string]string{"__type": code, "message": message}}
}

func sessionAnswer() answer {
	return answer{status: 200, body: map[string]string{"SessionId": "me-0123", "StreamUrl": "wss://gateway.example/v1/data-channel/me-0123?role=publish_subscribe&cell-number=AAE+/=", "TokenValue": "secret-token"}}
}

// fakeAPI answers the calls in order, the last answer again and again.
type fakeAPI struct {
	*httptest.Server
	mu      sync.Mutex
	answers []answer
	calls   []string // operations
	bodies  []string
	auth    []string
}

// newFakeAPI starts a TLS server and points the environment at it.
func newFakeAPI(t *testing.T, answers ...answer) *fakeAPI {
	t.Helper()
	isolate(t)
	f := &fakeAPI{answers: answers}
	f.Server = httptest.NewUnstartedServer(f)
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what some tests are about
	f.EnableHTTP2 = true
	f.StartTLS()
	t.Cleanup(f.Close)
	t.Setenv("AWS_ENDPOINT_URL_SSM", f.URL)
	t.Setenv("AWS_CA_BUNDLE", f.bundle(t))
	t.Setenv("AWS_REGION", "eu-central-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
	return f
}

// bundle writes the server's certificate to a file.
func (f *fakeAPI) bundle(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	f.calls = append(f.calls, strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSSM."))
	f.bodies = append(f.bodies, string(body))
	f.auth = append(f.auth, r.Header.Get("Authorization"))
	a := f.answers[min(len(f.calls), len(f.answers))-1]
	f.mu.Unlock()
	if a.after != nil {
		a = a.after(r)
	}
	if a.do != nil {
		a.do(w)
		return
	}
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", "request-id-1")
	w.WriteHeader(a.status)
	json.NewEncoder(w).Encode(a.body) //nolint:errcheck // the client sees it
}

func (f *fakeAPI) called() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// isolate takes the user's own set-up out of the test's environment.
func isolate(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "AWS_") || strings.HasSuffix(strings.ToLower(name), "_proxy") {
			t.Setenv(name, "") // restores the value afterwards
			os.Unsetenv(name)
		}
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(home, "config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(home, "credentials"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// newClient makes a client that is closed at the end of the test.
func newClient(t *testing.T, opts Options) *Client {
	t.Helper()
	if opts.Logf == nil {
		opts.Logf = func(level int, format string, args ...any) { t.Logf(format, args...) }
	}
	c, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	c.wait = 100 * time.Millisecond
	t.Cleanup(c.Close)
	return c
}

// profiles writes the shared config file.
func profiles(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(os.Getenv("AWS_CONFIG_FILE"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// within fails the test when f takes longer.
func within(t *testing.T, limit time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if d := time.Since(begin); d > limit {
		t.Errorf("took %v, want at most %v", d, limit)
	}
}
