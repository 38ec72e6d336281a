package awsapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestStartSession(t *testing.T) {
	f := newFakeAPI(t, sessionAnswer())
	c := newClient(t, Options{})
	s, err := c.StartSession(t.Context(), StartInput{Target: "mi-1", Document: "AWS-StartSSHSession",
		Parameters: map[string][]string{"portNumber": {"22"}}, Reason: "why"})
	if err != nil {
		t.Fatal(err)
	}
	want := Session{"me-0123", "wss://gateway.example/v1/data-channel/me-0123?role=publish_subscribe&cell-number=AAE+/=", "secret-token"}
	if s != want {
		t.Errorf("got %#v", s)
	}
	if got := f.bodies[0]; got != `{"DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["22"]},"Reason":"why","Target":"mi-1"}` {
		t.Errorf("request %s", got)
	}
	if strings.Contains(fmt.Sprint(s), "secret") {
		t.Error("a session prints its token")
	}
	if c.Region() != "eu-central-1" {
		t.Errorf("region %q", c.Region())
	}
}

func TestStartSessionLeavesEmptyFieldsOut(t *testing.T) {
	f := newFakeAPI(t, sessionAnswer())
	if _, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"}); err != nil {
		t.Fatal(err)
	}
	if got := f.bodies[0]; got != `{"Target":"mi-1"}` {
		t.Errorf("request %s", got)
	}
}

func TestResumeSession(t *testing.T) {
	tests := []struct {
		name   string
		answer answer
		gone   bool
	}{
		{"lives", sessionAnswer(), false},
		{"does not exist", refusal(400, "DoesNotExistException", "Session me-0123 does not exist."), true},
		{"empty token", answer{status: 200, body: map[string]string{"SessionId": "me-0123"}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			newFakeAPI(t, tt.answer)
			s, err := newClient(t, Options{}).ResumeSession(t.Context(), "me-0123")
			if errors.Is(err, ErrSessionGone) != tt.gone {
				t.Errorf("error %v, want gone %v", err, tt.gone)
			}
			if !tt.gone && (err != nil || s.Token != "secret-token") {
				t.Errorf("got %#v, %v", s, err)
			}
		})
	}
}

func TestConnectionStatus(t *testing.T) {
	newFakeAPI(t, answer{status: 200, body: map[string]string{"Target": "mi-1", "Status": "notconnected"}})
	status, err := newClient(t, Options{}).ConnectionStatus(t.Context(), "mi-1")
	if err != nil || status != "notconnected" {
		t.Errorf("got %q, %v", status, err)
	}
}

// A long-lived process has its credentials renewed by the user's tools, in the files.
func TestExpiredCredentialsAreReadAgain(t *testing.T) {
	f := newFakeAPI(t, refusal(400, "ExpiredTokenException", "The security token included in the request is expired"),
		answer{status: 200, body: map[string]string{"SessionId": "me-0123"}})
	os.Unsetenv("AWS_ACCESS_KEY_ID")
	os.Unsetenv("AWS_SECRET_ACCESS_KEY")
	profiles(t, "[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = x\n")
	c := newClient(t, Options{})
	profiles(t, "[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = y\n")
	stream := c.HTTPClient()
	if err := c.TerminateSession(t.Context(), "me-0123"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.auth[0], "AKIAOLD") || !strings.Contains(f.auth[1], "AKIANEW") {
		t.Errorf("credentials used: %q", f.auth)
	}
	if c.HTTPClient() != stream {
		t.Error("the stream's client was replaced under a living data channel")
	}
}

// drop ends the connection after the request was read.
func drop(http.ResponseWriter) { panic(http.ErrAbortHandler) }

func TestStartSessionIsSentAgainOnlyWhenNothingWasStarted(t *testing.T) {
	tests := []struct {
		name    string
		answers []answer
		calls   int
		ok      bool
	}{
		{"throttled", []answer{refusal(400, "ThrottlingException", "Rate exceeded"), sessionAnswer()}, 1, false},
		{"unavailable", []answer{refusal(503, "ServiceUnavailable", ""), sessionAnswer()}, 1, false},
		{"too many requests", []answer{refusal(429, "", ""), sessionAnswer()}, 1, false},
		{"internal error", []answer{refusal(500, "InternalServerError", ""), sessionAnswer()}, 1, false},
		{"connection lost after the request", []answer{{do: drop}, sessionAnswer()}, 1, false},
		{"target not connected", []answer{refusal(400, "TargetNotConnected", "no"), sessionAnswer()}, 1, false},
		{"incomplete answer", []answer{{status: 200, body: map[string]string{}}, sessionAnswer()}, 1, false},
		{"expired", []answer{refusal(400, "ExpiredTokenException", "old"), sessionAnswer()}, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeAPI(t, tt.answers...)
			_, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"})
			if got := len(f.called()); got != tt.calls || (err == nil) != tt.ok {
				t.Errorf("%d calls, error %v; want %d calls, success %v", got, err, tt.calls, tt.ok)
			}
		})
	}
}

// Twin of "connection lost after the request": the calls that may be made twice are.
func TestTerminateSessionIsSentAgain(t *testing.T) {
	f := newFakeAPI(t, answer{do: drop}, answer{status: 200, body: map[string]string{}})
	if err := newClient(t, Options{}).TerminateSession(t.Context(), "me-0123"); err != nil {
		t.Fatal(err)
	}
	if got := f.called(); !slices.Equal(got, []string{"TerminateSession", "TerminateSession"}) {
		t.Errorf("calls %q", got)
	}
}

// A refusal for the rate is for the caller to know: the calls of others count, too.
func TestThrottlingIsTold(t *testing.T) {
	for _, a := range []answer{refusal(400, "ThrottlingException", "Rate exceeded"), refusal(503, "ThrottlingException", ""), refusal(429, "", "")} {
		newFakeAPI(t, a)
		_, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"})
		if !errors.Is(err, ErrThrottled) || errors.Is(err, ErrMayHaveStarted) {
			t.Errorf("%d: %v", a.status, err)
		}
	}
	for _, a := range []answer{refusal(503, "ServiceUnavailable", ""), refusal(503, "", ""), refusal(500, "InternalServerError", "")} {
		newFakeAPI(t, a)
		_, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"})
		if errors.Is(err, ErrThrottled) || !errors.Is(err, ErrMayHaveStarted) || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%d: %v", a.status, err)
		}
	}
	newFakeAPI(t, refusal(400, "TargetNotConnected", "no"))
	if _, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"}); errors.Is(err, ErrThrottled) || !errors.Is(err, ErrNotConnected) {
		t.Errorf("not connected: %v", err)
	}
}

func TestHungAPIKeepsTheCauseOfTheContext(t *testing.T) {
	why := errors.New("the user gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	newFakeAPI(t, answer{do: func(http.ResponseWriter) { cancel(why); <-release }})
	t.Cleanup(func() { close(release) })
	_, err := newClient(t, Options{}).StartSession(ctx, StartInput{Target: "mi-1"})
	want := "mi-1: start session: the user gave up; a session may have been started; it ends at its idle time-out"
	if !errors.Is(err, why) || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
