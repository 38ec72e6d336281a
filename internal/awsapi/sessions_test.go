package awsapi

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestActiveSessions(t *testing.T) {
	page := func(token string, sessions ...map[string]any) answer {
		body := map[string]any{"Sessions": sessions}
		if token != "" {
			body["NextToken"] = token
		}
		return answer{status: 200, body: body}
	}
	first := map[string]any{"SessionId": "me-1", "Target": "mi-1", "Owner": "arn:aws:iam::1:user/me", "Status": "Connected",
		"DocumentName": "AWS-StartSSHSession", "Reason": "why", "StartDate": 1700000000.5}
	f := newFakeAPI(t, page("more", first), page("", map[string]any{"SessionId": "me-2"}))
	got, err := newClient(t, Options{}).ActiveSessions(t.Context(), SessionQuery{ID: "me-1", Target: "mi-1"})
	want := []SessionInfo{
		{"me-1", "mi-1", "arn:aws:iam::1:user/me", "Connected", "AWS-StartSSHSession", "why", time.Unix(1700000000, 5e8).UTC()}, {ID: "me-2"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, part := range []string{`"State":"Active"`, `{"key":"SessionId","value":"me-1"}`, `{"key":"Target","value":"mi-1"}`} {
		if !strings.Contains(f.bodies[0], part) {
			t.Errorf("no %s in the request %s", part, f.bodies[0])
		}
	}
	if !strings.Contains(f.bodies[1], `"NextToken":"more"`) {
		t.Errorf("second request %s", f.bodies[1])
	}
}

func TestCaller(t *testing.T) {
	const arn = "arn:aws:sts::123456789012:assumed-role/admin/me"
	f := newFakeAPI(t, answer{do: func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/xml")
		io.WriteString(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>`+arn+
			`</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>`)
	}})
	t.Setenv("AWS_ENDPOINT_URL_STS", f.URL)
	if got, err := newClient(t, Options{}).Caller(t.Context()); got != arn {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestIdentity(t *testing.T) {
	f := newFakeAPI(t, sessionAnswer())
	for name, tt := range map[string]struct {
		env  string
		opts Options
		want Identity
	}{
		"environment": {f.URL, Options{}, Identity{"eu-central-1", f.URL, "AKIAEXAMPLE"}},
		"options":     {f.URL, Options{Region: "eu-west-1", Endpoint: "https://other.example"}, Identity{"eu-west-1", "https://other.example", "AKIAEXAMPLE"}},
		"region's":    {"", Options{}, Identity{"eu-central-1", "", "AKIAEXAMPLE"}},
	} {
		t.Setenv("AWS_ENDPOINT_URL_SSM", tt.env)
		if got, err := newClient(t, tt.opts).Identity(t.Context()); err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// What may have left a session behind is told apart from what surely hasn't.
func TestStartSessionThatMayHaveStarted(t *testing.T) {
	for name, tt := range map[string]struct {
		answer answer
		want   bool
	}{
		"connection lost after the request": {answer{do: drop}, true},
		"internal error":                    {refusal(500, "InternalServerError", ""), true},
		"incomplete answer":                 {answer{status: 200, body: map[string]string{"SessionId": "me-0123"}}, true},
		"refused":                           {refusal(400, "TargetNotConnected", "no"), false},
	} {
		newFakeAPI(t, tt.answer)
		if _, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"}); err == nil || errors.Is(err, ErrMayHaveStarted) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
