package ssmchannel

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// The socket is found below HTTP and below TLS, and what came in while it was quiet is read after it.
func TestQuietSocket(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{"plain": httptest.NewServer, "TLS": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			more := make(chan struct{})
			server := start(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusOK)
				http.NewResponseController(w).Flush()
				<-more
				io.WriteString(w, "late")
			}))
			defer server.Close()
			var finder socketFinder
			request, err := http.NewRequestWithContext(finder.trace(testContext(t)), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := server.Client().Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			socket := finder.socket()
			if socket == nil {
				t.Fatal("no socket")
			}
			quiet(socket, true)
			close(more)
			quiet(socket, false)
			if got, err := io.ReadAll(answer.Body); string(got) != "late" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
