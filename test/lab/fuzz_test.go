package lab

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// FuzzVerify: no Authorization header but the right one passes, none makes verify fall over.
func FuzzVerify(f *testing.F) {
	keys := credentials{keyID: "AKIA", secret: "secret", region: Region}
	f.Add("AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-central-1/ssm/aws4_request, SignedHeaders=host;x-amz-date, Signature=00", "a=b+c/d")
	f.Add("AWS4-HMAC-SHA256 Credential=////,SignedHeaders=,Signature=", "%zz")
	f.Add("Basic x", "")
	f.Fuzz(func(t *testing.T, auth, query string) {
		r := httptest.NewRequest("POST", "/", nil)
		r.URL.RawQuery = query
		r.Header.Set("Authorization", auth)
		r.Header.Set("X-Amz-Date", time.Now().UTC().Format(amzDate))
		if keys.verify(r, nil, "ssm") == nil {
			t.Errorf("passed: %q", auth)
		}
	})
}

// FuzzStartRequest: whatever the API takes for a session has a document, and a port that is one.
func FuzzStartRequest(f *testing.F) {
	f.Add(`{"Target":"mi-0","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["22"]}}`)
	f.Add(`{"Target":"mi-0","DocumentName":"AWS-StartPortForwardingSession","Parameters":{"portNumber":["+1"],"localPortNumber":["0"]}}`)
	f.Add(`{"Parameters":{"host":[]}}`)
	f.Fuzz(func(t *testing.T, body string) {
		var in startRequest
		if json.Unmarshal([]byte(body), &in) != nil {
			return
		}
		params, err := parameters(in)
		if err == nil && (documents[in.DocumentName] == nil || strings.Trim(params["portNumber"], "0123456789") != "") {
			t.Errorf("%q gives %v", body, params)
		}
	})
}
