package sshproxy

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"testing"
)

// fakeMaster serves one client with a script.
func fakeMaster(t *testing.T, talk func(c *rawMux)) (path string) {
	t.Helper()
	path = filepath.Join(shortDir(t), "c")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.accept()
		if err != nil {
			return
		}
		defer c.Close()
		talk(&rawMux{newMuxConn(c), t})
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return path
}

func TestMuxClientErrors(t *testing.T) {
	hello := &helloMessage{Version: muxVersion}
	const helloFailed = "muxclient: master hello exchange failed"
	skip := func(c *rawMux, frames int) {
		for range frames {
			if _, err := c.receive(); err != nil {
				t.Error(err)
			}
		}
	}
	tests := []struct {
		name  string
		talk  func(c *rawMux)
		text  string
		cause error
	}{
		{name: "hangs up before hello", talk: func(*rawMux) {}, text: helloFailed, cause: ErrMasterGone},
		{name: "hangs up after reading", talk: func(c *rawMux) { skip(c, 1) }, text: helloFailed, cause: ErrMasterGone},
		{name: "version 5", talk: func(c *rawMux) { _ = c.send(&helloMessage{Version: 5}); skip(c, 1) },
			text: "Unsupported multiplexing protocol version 5 (expected 4)\n" + helloFailed, cause: errMalformed},
		{name: "garbage", talk: func(c *rawMux) { _, _ = c.Write([]byte("220 mail\r\n")); skip(c, 1) }, text: helloFailed},
		{name: "no answer to alive", talk: func(c *rawMux) { _ = c.send(hello); skip(c, 2) },
			text: "mux_client_request_session: master alive request failed", cause: ErrMasterGone},
		{name: "hangs up on the session", talk: func(c *rawMux) {
			_ = c.send(hello)
			skip(c, 2)
			_ = c.send(&numberMessage{Kind: muxAlive, Number: 77})
			skip(c, 1)
		}, text: "mux_client_request_session: read from master failed: Broken pipe", cause: ErrMasterGone},
		{name: "denied", talk: func(c *rawMux) {
			_ = c.send(hello)
			skip(c, 2)
			_ = c.send(&numberMessage{Kind: muxAlive, Number: 77})
			skip(c, 1)
			_ = c.send(&refusalMessage{Kind: muxDenied, ID: 1, Reason: "Permission denied"})
			_, _ = io.Copy(io.Discard, c.in)
		}, text: "Master refused session request: Permission denied"},
		{name: "out of sequence", talk: func(c *rawMux) {
			_ = c.send(hello)
			skip(c, 2)
			_ = c.send(&numberMessage{Kind: muxAlive, ID: 8, Number: 77})
		}, text: "mux_client_request: out of sequence reply: my id 0 theirs 8", cause: errMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tryMux(t, fakeMaster(t, tt.talk), "true")
			if err == nil || err.Error() != tt.text || tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("got %v (%v), want %q", err, errors.Unwrap(err), tt.text)
			}
		})
	}
}

func TestInfoOfAMaster(t *testing.T) {
	offering := &helloMessage{Version: muxVersion, Extensions: []Extension{{infoExtension, "0"}}}
	answering := func(hello *helloMessage, reply muxMessage) func(*rawMux) {
		return func(c *rawMux) {
			_ = c.send(hello)
			for range 2 { // HELLO, and the request where one may be made
				if _, err := c.receive(); err != nil {
					return
				}
			}
			_ = c.send(reply)
		}
	}
	tests := []struct {
		name        string
		hello       *helloMessage
		reply       muxMessage
		text, error string
	}{
		{name: "told", hello: offering, reply: &infoReplyMessage{Status: 1, Text: "peer 127.0.0.1\r\n"}, text: "peer 127.0.0.1\r\n"},
		{name: "not offered", hello: &helloMessage{Version: muxVersion}, error: "mux server does not support info request"},
		{name: "refused", hello: offering, reply: &refusalMessage{Kind: muxFailure, Reason: "no"}, error: "mux_client_request_info: master returned error: no"},
		{name: "another reply", hello: offering, reply: &plainMessage{Kind: muxOK}, error: "muxclient: info request failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dialMaster(t, fakeMaster(t, answering(tt.hello, tt.reply)))
			text, err := c.Info(testContext(t), "connection")
			c.Close()
			if got := fmt.Sprint(err); text != tt.text || err != nil && got != tt.error || err == nil && tt.error != "" {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
}
