package awsapi

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"ssm-ssh/internal/report"
)

// canned answers every call alike, without a network.
type canned struct {
	status int
	kind   string // X-Amzn-ErrorType
	body   []byte
}

func (c canned) Do(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: c.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amzn-Errortype": {c.kind}},
		Body:   io.NopCloser(bytes.NewReader(c.body)),
	}, nil
}

// fuzzClient is a client that gets these answers. What it loads when its credentials have expired leads
// nowhere.
func fuzzClient(f *testing.F) func(canned) *Client {
	for name, value := range map[string]string{
		"AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-key",
		"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_CA_BUNDLE": "",
	} {
		f.Setenv(name, value)
	}
	return func(answer canned) *Client {
		cfg := aws.Config{Region: "eu-central-1", Credentials: credentials.NewStaticCredentialsProvider("AKIAEXAMPLE", "secret-key", "")}
		api := ssm.NewFromConfig(cfg, func(o *ssm.Options) { o.HTTPClient, o.Retryer = answer, aws.NopRetryer{} })
		return &Client{logf: report.Discard, cur: &loaded{cfg: cfg, api: api, http: new(http.Client)}}
	}
}

// FuzzAnswer reads what it likes as AWS's answer to the calls of a session's life: there is a session that a
// data channel can be opened with, or one line that says why not.
func FuzzAnswer(f *testing.F) {
	client := fuzzClient(f)
	f.Add(200, "", []byte(`{"SessionId":"me-0123","StreamUrl":"wss://gateway.example/","TokenValue":"secret-token"}`))
	f.Add(200, "", []byte(`{"SessionId":"me-0123","StreamUrl":"wss://gateway.example/","TokenValue":""}`))
	f.Add(200, "", []byte(`{"Target":"mi-1","Status":"connected"}`))
	f.Add(400, "ThrottlingException:http://x/", []byte(`{"message":"Rate exceeded"}`))
	f.Add(400, "", []byte(`{"__type":"com.amazonaws.ssm#TargetNotConnected","message":"not\nconnected"}`))
	f.Add(400, "", []byte(`{"__type":"ExpiredTokenException"}`))
	f.Add(503, "", []byte(`<html>`))
	f.Add(302, "", []byte(nil))
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte) {
		if status < 100 || status > 599 {
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*throttleFirst)
		defer cancel()
		c := client(canned{status, kind, body})
		started, err := c.StartSession(ctx, StartInput{Target: "mi-1"})
		checkAnswer(t, err, started.ID != "" && started.StreamURL != "" && started.Token != "")
		resumed, err := c.ResumeSession(ctx, "me-0123")
		checkAnswer(t, err, resumed.Token != "")
		checkAnswer(t, c.TerminateSession(ctx, "me-0123"), true)
		_, err = c.ConnectionStatus(ctx, "mi-1")
		checkAnswer(t, err, true)
	})
}

func checkAnswer(t *testing.T, err error, whole bool) {
	t.Helper()
	switch {
	case err == nil && !whole:
		t.Error("half an answer was taken")
	case err != nil && (err.Error() == "" || strings.ContainsAny(err.Error(), "\r\n\x1b")):
		t.Errorf("not a line: %q", err)
	}
}

// FuzzStreamURL signs what it likes as the address of a stream.
func FuzzStreamURL(f *testing.F) {
	client := fuzzClient(f)
	f.Add("wss://gateway.example/v1/data-channel/me-0123?role=publish_subscribe&cell-number=AAE+/=")
	f.Add("wss://gateway.example/?X-Amz-Algorithm=a&X-Amz-Signature=secret")
	f.Add("wss://gateway.example:443/%")
	f.Fuzz(func(t *testing.T, streamURL string) {
		header, err := client(canned{}).SignStream(t.Context(), streamURL)
		checkAnswer(t, err, true)
		if err == nil && header != nil && !strings.HasPrefix(header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
			t.Errorf("headers %v", header)
		}
	})
}
