package awsapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/report"
)

func keyAnswer() answer {
	return answer{status: 200, body: map[string]string{
		"CiphertextBlob": base64.StdEncoding.EncodeToString([]byte("sealed")),
		"Plaintext":      base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xa5}, dataKeyBytes)),
		"KeyId":          "arn:aws:kms:eu-central-1:123456789012:key/1",
	}}
}

// newFakeKMS is a fake API that is reached under the name of KMS only.
func newFakeKMS(t *testing.T, answers ...answer) *fakeAPI {
	t.Helper()
	f := newFakeAPI(t, answers...)
	t.Setenv("AWS_ENDPOINT_URL_SSM", "")
	t.Setenv("AWS_ENDPOINT_URL_KMS", f.URL)
	return f
}

func TestGenerateDataKey(t *testing.T) {
	f := newFakeKMS(t, keyAnswer())
	var log strings.Builder
	c := newClient(t, Options{Logf: func(_ int, format string, args ...any) { log.WriteString(format) }})
	plain, sealed, err := c.GenerateDataKey(t.Context(), "alias/sessions", map[string]string{"aws:ssm:SessionId": "me-0123"})
	if err != nil || !bytes.Equal(plain, bytes.Repeat([]byte{0xa5}, dataKeyBytes)) || string(sealed) != "sealed" {
		t.Fatalf("got %x, %q, %v", plain, sealed, err)
	}
	if got := f.called(); len(got) != 1 || got[0] != kmsTarget {
		t.Errorf("called %q", got)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(f.bodies[0]), &body); err != nil {
		t.Fatal(err)
	}
	if body["KeyId"] != "alias/sessions" || body["NumberOfBytes"] != 64.0 || body["EncryptionContext"].(map[string]any)["aws:ssm:SessionId"] != "me-0123" {
		t.Errorf("asked for %v", body)
	}
	if auth := f.auth[0]; !strings.Contains(auth, "/eu-central-1/kms/aws4_request") || !strings.Contains(auth, "x-amz-target") {
		t.Errorf("signed %q", auth)
	}
	if strings.Contains(log.String(), "sealed") || strings.Contains(log.String(), "\xa5") {
		t.Error("the key is in the log")
	}
}

func TestGenerateDataKeyErrors(t *testing.T) {
	tests := []struct {
		name   string
		answer answer
		want   []string
		calls  int
	}{
		{"denied", refusal(400, "AccessDeniedException", "User is not authorized."),
			[]string{"get a data key", "AccessDeniedException: User is not authorized", "kms:GenerateDataKey"}, 1},
		{"no such key", refusal(400, "com.amazonaws.kms#NotFoundException:http://x/", "Key 'x' does not exist"),
			[]string{"NotFoundException: Key 'x' does not exist", "is it enabled?"}, 1},
		{"disabled", refusal(400, "DisabledException", "arn is disabled."), []string{"is it enabled?"}, 1},
		{"throttled", refusal(400, "ThrottlingException", "Rate exceeded"), []string{"ThrottlingException"}, 3},
		{"broken", refusal(500, "KMSInternalException", ""), []string{"KMSInternalException"}, 3},
		{"no JSON", answer{status: 502, do: func(w http.ResponseWriter) { http.Error(w, "<html>", http.StatusBadGateway) }}, []string{"UnknownError"}, 3},
		{"short key", answer{status: 200, body: map[string]string{"CiphertextBlob": "AAAA", "Plaintext": "AAAA"}},
			[]string{"no data key"}, 1},
		{"redirect", answer{status: 307, header: map[string]string{"Location": "https://elsewhere.example/"}}, []string{"UnknownError"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFakeKMS(t, tt.answer)
			plain, _, err := newClient(t, Options{}).GenerateDataKey(t.Context(), "key", nil)
			var line *report.Error
			if !errors.As(err, &line) || plain != nil {
				t.Fatalf("got %x, %v", plain, err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
			if n := len(f.called()); n != tt.calls {
				t.Errorf("%d calls", n)
			}
		})
	}
}

func TestGenerateDataKeyTriesAgain(t *testing.T) {
	f := newFakeKMS(t, refusal(400, "ThrottlingException", "Rate exceeded"), keyAnswer())
	if _, _, err := newClient(t, Options{}).GenerateDataKey(t.Context(), "key", nil); err != nil || len(f.called()) != 2 {
		t.Errorf("%d calls, %v", len(f.called()), err)
	}
}

func TestGenerateDataKeyEndsWithItsContext(t *testing.T) {
	newFakeKMS(t, answer{do: func(w http.ResponseWriter) { <-t.Context().Done() }})
	ended := errors.New("ended by the test")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, ended)
	defer cancel()
	within(t, 2*time.Second, func() {
		_, _, err := newClient(t, Options{}).GenerateDataKey(ctx, "key", nil)
		if !errors.Is(err, ended) {
			t.Errorf("got %v", err)
		}
	})
}

func TestKMSEndpoint(t *testing.T) {
	tests := []struct {
		name, profile string
		env           map[string]string
		want          string
	}{
		{"region", "", map[string]string{"AWS_REGION": "eu-central-1"}, "https://kms.eu-central-1.amazonaws.com/"},
		{"china", "", map[string]string{"AWS_REGION": "cn-north-1"}, "https://kms.cn-north-1.amazonaws.com.cn/"},
		{"fips", "", map[string]string{"AWS_REGION": "us-gov-west-1", "AWS_USE_FIPS_ENDPOINT": "true"}, "https://kms-fips.us-gov-west-1.amazonaws.com/"},
		{"dual stack", "", map[string]string{"AWS_REGION": "us-east-1", "AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://kms.us-east-1.api.aws/"},
		{"service", "", map[string]string{"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "https://all.example", "AWS_ENDPOINT_URL_KMS": "https://kms.example"}, "https://kms.example"},
		{"all services", "", map[string]string{"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "https://all.example"}, "https://all.example"},
		{"profile", "[default]\nregion=us-east-1\nservices=s\n[services s]\nkms =\n  endpoint_url = https://profile.example\n", nil, "https://profile.example"},
		{"ignored", "", map[string]string{"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_KMS": "https://kms.example", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, "https://kms.us-east-1.amazonaws.com/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-key")
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			if tt.profile != "" {
				profiles(t, tt.profile)
			}
			got, err := kmsEndpoint(t.Context(), newClient(t, Options{}).current())
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzKMSAnswer(f *testing.F) {
	f.Add("", []byte(`{"CiphertextBlob":"AAAA","Plaintext":"AAAA"}`))
	f.Add("NotFoundException:http://x/", []byte(`{}`))
	f.Add("", []byte(`{"__type":"com.amazonaws.kms#NotFoundException","Message":"no"}`))
	f.Fuzz(func(t *testing.T, header string, text []byte) {
		if key, err := parseDataKey(text); err == nil && len(key.Plaintext) != dataKeyBytes {
			t.Errorf("a key of %d bytes was taken", len(key.Plaintext))
		}
		err := parseRefusal(http.Header{"X-Amzn-Errortype": {header}}, text)
		if err == nil || err.Error() == "" {
			t.Error("no error")
		}
	})
}
