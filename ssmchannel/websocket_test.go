package ssmchannel

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// testContext bounds what a test waits for real time.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWebsocketEcho(t *testing.T) {
	g := newGateway(t, newPeer(peerOptions{echo: true}))
	conn, err := Dial(testContext(t), g.session(), Config{ClientVersion: "1.3.9.9"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data := make([]byte, 100_000)
	rand.Read(data)
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Error("other bytes came back")
	}
	if v := conn.AgentVersion(); v != "3.3.0.0" {
		t.Errorf("agent version %q", v)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	if !conn.Terminated() || !errors.Is(conn.Err(), net.ErrClosed) {
		t.Errorf("terminated %v, err %v", conn.Terminated(), conn.Err())
	}
	if open := g.opens[0]; open.TokenValue != "secret-token" || open.ClientVersion != "1.3.9.9" ||
		open.MessageSchemaVersion != "1.0" || len(open.RequestID) != 36 || len(open.ClientID) != 36 {
		t.Errorf("opening message %+v", open)
	}
	if q := g.queries[0]; q != "role=publish_subscribe&cell-number=AAEAA+q/7w==" {
		t.Errorf("query was changed to %s", q)
	}
}

func TestWebsocketSigning(t *testing.T) {
	tests := []struct {
		name   string
		suffix string
		want   string
	}{
		{"signed by us", "", "signature"},
		{"presigned", "&X-Amz-Algorithm=x&X-Amz-Signature=abc", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, newPeer(peerOptions{}))
			s := g.session()
			s.StreamURL += tt.suffix
			conn, err := Dial(testContext(t), s, Config{
				Sign: func(_ context.Context, u string) (http.Header, error) {
					if u != s.StreamURL {
						t.Errorf("asked to sign %s", u)
					}
					return http.Header{"Authorization": {"signature"}}, nil
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := g.headers[0].Get("Authorization"); got != tt.want {
				t.Errorf("authorization %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWebsocketRefused(t *testing.T) {
	g := newGateway(t, newPeer(peerOptions{}))
	g.status = http.StatusForbidden
	_, err := Dial(testContext(t), g.session(), Config{})
	var dialErr *DialError
	if !errors.As(err, &dialErr) || dialErr.StatusCode != http.StatusForbidden {
		t.Fatalf("got %v", err)
	}
	if len(g.queries) != 1 {
		t.Errorf("%d attempts, want 1", len(g.queries))
	}
	if strings.Contains(err.Error(), "cell-number") || strings.Contains(err.Error(), "secret") {
		t.Errorf("the error tells too much: %v", err)
	}
}

func TestWebsocketCutsInMidTransfer(t *testing.T) {
	p := newPeer(peerOptions{echo: true, pace: 100 * time.Microsecond})
	g := newGateway(t, p)
	var signed, resumed atomic.Int64
	conn, err := Dial(testContext(t), g.session(), Config{
		Sign: func(context.Context, string) (http.Header, error) {
			return http.Header{"Authorization": {fmt.Sprint("signature-", signed.Add(1))}}, nil
		},
		Resume: func(_ context.Context, id string) (Session, error) {
			s := g.session()
			s.Token = fmt.Sprint("token-", resumed.Add(1))
			return s, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const piece = 100_000
	data := make([]byte, 3*piece)
	rand.Read(data)
	wrote := make(chan error, 1)
	go func() {
		for i := 0; i < len(data); i += piece {
			if _, err := conn.Write(data[i : i+piece]); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	got := make([]byte, len(data))
	for i := range 3 {
		if _, err := io.ReadFull(conn, got[i*piece:(i+1)*piece]); err != nil {
			t.Fatal(err)
		}
		g.cutAll()
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Error("other bytes came back")
	}
	if s := conn.Stats(); s.Resumes < 1 {
		t.Errorf("only %d resumes", s.Resumes)
	}
	conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.headers { // each with the credentials of its moment
		if got, want := g.headers[i].Get("Authorization"), fmt.Sprint("signature-", i+1); got != want {
			t.Errorf("websocket %d has %q, want %q", i, got, want)
		}
	}
	for i, open := range g.opens[1:] { // and a token of its own; some may have been cut before they could use it
		if open.TokenValue == g.opens[i].TokenValue || open.ClientID != g.opens[0].ClientID {
			t.Errorf("opening message %d: %+v", i+1, open)
		}
	}
}

func TestWebsocketWithoutResumeEnds(t *testing.T) {
	g := newGateway(t, newPeer(peerOptions{}))
	conn, err := Dial(testContext(t), g.session(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	g.cutAll()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrLost) {
		t.Errorf("got %v", err)
	}
	<-conn.Done()
	if _, err := conn.Write([]byte("x")); !errors.Is(err, ErrLost) {
		t.Errorf("got %v", err)
	}
}

func TestWebsocketEndByPeer(t *testing.T) {
	tests := []struct {
		name   string
		reason string
	}{
		{"orderly", ""},
		{"with a reason", "Unable to connect to specified port"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeer(peerOptions{})
			g := newGateway(t, p)
			conn, err := Dial(testContext(t), g.session(), Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			p.sendStream(1, []byte("last words"))
			p.end(tt.reason)
			got, err := io.ReadAll(conn)
			if string(got) != "last words" {
				t.Errorf("read %q", got)
			}
			var closed *CloseError
			if tt.reason == "" && err != nil || tt.reason != "" && (!errors.As(err, &closed) || closed.Reason != tt.reason) {
				t.Errorf("ended with %v", err)
			}
			if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write after the end: %v", err)
			}
		})
	}
}
