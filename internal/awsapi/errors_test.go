package awsapi

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRefusalsAreOneLineWithAHint(t *testing.T) {
	const denied = "User: arn:aws:iam::123456789012:user/me is not authorized to perform: ssm:StartSession on resource: arn:aws:ssm:eu-central-1:123456789012:managed-instance/mi-1 because no identity-based policy allows the ssm:StartSession action"
	tests := []struct {
		name   string
		answer answer
		want   string
	}{
		{"access denied", refusal(400, "AccessDeniedException", denied),
			"mi-1: start session: AccessDeniedException: " + denied + "; the caller needs ssm:StartSession on the node and on arn:aws:ssm:eu-central-1::document/AWS-StartSSHSession"},
		{"target not connected", refusal(400, "TargetNotConnected", "mi-1 is not connected."),
			"mi-1: start session: TargetNotConnected: mi-1 is not connected; is the node's SSM agent running and online in eu-central-1?"},
		{"no such document", refusal(400, "InvalidDocument", "Document with name AWS-StartSSHSession does not exist."),
			"mi-1: start session: InvalidDocument: Document with name AWS-StartSSHSession does not exist; is there a document AWS-StartSSHSession in eu-central-1? SSMDocument names another"},
		{"parameters", refusal(400, "InvalidParameters", "Parameter portNumber is not defined"),
			"mi-1: start session: InvalidParameters: Parameter portNumber is not defined; does the document AWS-StartSSHSession take a portNumber?"},
		{"expired", refusal(400, "ExpiredTokenException", "The security token included in the request is expired"),
			"mi-1: start session: ExpiredTokenException: The security token included in the request is expired; get new credentials"},
		{"unknown key", refusal(400, "UnrecognizedClientException", "The security token included in the request is invalid."),
			"mi-1: start session: UnrecognizedClientException: The security token included in the request is invalid; AWS doesn't know this access key in eu-central-1; check AWS_PROFILE and AWS_ACCESS_KEY_ID"},
		{"wrong secret", refusal(400, "InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method."),
			"mi-1: start session: InvalidSignatureException: The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method; does the secret access key belong to the access key?"},
		{"wrong clock", refusal(400, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than 20260102T000000Z"),
			"mi-1: start session: InvalidSignatureException: Signature expired: 20260101T000000Z is now earlier than 20260102T000000Z; is this machine's clock right?"},
		{"throttled", refusal(400, "ThrottlingException", "Rate exceeded"),
			"mi-1: start session: ThrottlingException: Rate exceeded; the account's rate for this call in eu-central-1 is used up; try again in a minute"},
		{"internal", refusal(500, "InternalServerError", ""),
			"mi-1: start session: InternalServerError; a session may have been started; it ends at its idle time-out"},
		{"not AWS", answer{status: 200, body: map[string]string{}},
			"mi-1: start session: the answer holds no session; is the endpoint AWS's?"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			newFakeAPI(t, tt.answer)
			var log bytes.Buffer
			c := newClient(t, Options{Logf: func(level int, format string, args ...any) {
				fmt.Fprintf(&log, "%d "+format+"\n", append([]any{level}, args...)...)
			}})
			c.wait = time.Minute
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // too short for a second attempt
			defer cancel()
			_, err := c.StartSession(ctx, StartInput{Target: "mi-1", Document: "AWS-StartSSHSession"})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if tt.answer.status != 200 && !strings.Contains(log.String(), "request-id-1") {
				t.Errorf("the log lacks the request id:\n%s", log.String())
			}
			if strings.Contains(log.String(), "secret") {
				t.Errorf("the log holds a secret:\n%s", log.String())
			}
		})
	}
}

func TestOtherCallsNameTheirRight(t *testing.T) {
	newFakeAPI(t, refusal(400, "AccessDeniedException", "no"))
	c := newClient(t, Options{})
	for want, do := range map[string]func() error{
		"terminate session: AccessDeniedException: no; the caller needs ssm:TerminateSession": func() error { return c.TerminateSession(t.Context(), "me-1") },
		"resume session: AccessDeniedException: no; the caller needs ssm:ResumeSession":       func() error { _, err := c.ResumeSession(t.Context(), "me-1"); return err },
		"mi-1: ask for the connection status: AccessDeniedException: no; the caller needs ssm:GetConnectionStatus": func() error {
			_, err := c.ConnectionStatus(t.Context(), "mi-1")
			return err
		},
	} {
		if err := do(); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestLinesBeginWithWhatTheUserTyped(t *testing.T) {
	newFakeAPI(t, refusal(400, "TargetNotConnected", "mi-1 is not connected."))
	_, err := newClient(t, Options{Target: "mi-1.eu-central-1"}).StartSession(t.Context(), StartInput{Target: "mi-1"})
	if err == nil || !strings.HasPrefix(err.Error(), "mi-1.eu-central-1: start session: ") {
		t.Errorf("got %v", err)
	}
	if _, err := New(t.Context(), Options{Target: "web", Profile: "nobody"}); err == nil || !strings.HasPrefix(err.Error(), "web: load AWS") {
		t.Errorf("got %v", err)
	}
}

func TestDocumentARN(t *testing.T) {
	for _, tt := range []struct{ name, region, document, want string }{
		{"of AWS", "eu-west-1", "AWS-StartSSHSession", "arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession"},
		{"China", "cn-north-1", "AWS-StartSSHSession", "arn:aws-cn:ssm:cn-north-1::document/AWS-StartSSHSession"},
		{"GovCloud", "us-gov-west-1", "AWS-StartSSHSession", "arn:aws-us-gov:ssm:us-gov-west-1::document/AWS-StartSSHSession"},
		{"one's own", "eu-west-1", "Ssh", "arn:aws:ssm:eu-west-1:ACCOUNT:document/Ssh"},
		{"an ARN", "eu-west-1", "arn:aws:ssm:eu-west-1:1:document/Ssh", "arn:aws:ssm:eu-west-1:1:document/Ssh"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := documentARN(tt.region, tt.document); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestConfigurationThatCannotBeLoaded(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(bad, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret-key", "AWS_REGION": "eu-west-1"}
	tests := []struct {
		name string
		env  map[string]string // "" unsets
		file string
		opts Options
		want string // the line, or its beginning and end around " … "
	}{
		{"no region", map[string]string{"AWS_REGION": ""}, "", Options{},
			"load AWS configuration: no region is set; set AWS_REGION, region in the profile, or name the node as mi-….REGION"},
		{"no credentials", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "", Options{},
			"get AWS credentials: there are none in the environment, in the profile or from instance metadata; set AWS_PROFILE, or sign in with the AWS CLI"},
		{"no such profile", nil, "", Options{Profile: "nobody"},
			`load AWS configuration: there is no profile "nobody"; aws configure list-profiles shows those that there are`},
		{"never signed in", nil, "[profile dev]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = r\n[sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.example/start\n", Options{Profile: "dev"},
			"get AWS credentials: the sign-in has expired or was never made; sign in: aws sso login --profile dev"},
		{"role by a profile never signed in", nil, "[profile dev]\nsso_start_url = https://corp.example/start\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n[profile admin]\nrole_arn = arn:aws:iam::1:role/admin\nsource_profile = dev\n", Options{Profile: "admin"},
			"get AWS credentials: the sign-in has expired or was never made; sign in: aws sso login --profile dev"},
		{"process fails", nil, "[profile p]\ncredential_process = false\n", Options{Profile: "p"},
			"get AWS credentials: … ; does the profile's credential_process work by itself?"},
		{"MFA", nil, "[profile m]\nrole_arn = arn:aws:iam::1:role/admin\nsource_profile = k\nmfa_serial = arn:aws:iam::1:mfa/me\n[profile k]\naws_access_key_id = a\naws_secret_access_key = b\n", Options{Profile: "m"},
			"load AWS configuration: the profile asks for an MFA code; get session credentials first and put them into the environment"},
		{"bundle missing", map[string]string{"AWS_CA_BUNDLE": "/nonexistent/ca.pem"}, "", Options{},
			"load AWS configuration: … ; AWS_CA_BUNDLE must name a file of certificates in PEM form"},
		{"bundle holds none", map[string]string{"AWS_CA_BUNDLE": bad}, "", Options{},
			"load AWS configuration: … ; AWS_CA_BUNDLE must name a file of certificates in PEM form"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			isolate(t)
			for name, value := range keys {
				t.Setenv(name, value)
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			profiles(t, tt.file)
			_, err := New(t.Context(), tt.opts)
			if err == nil {
				t.Fatal("no error")
			}
			first, last, _ := strings.Cut(tt.want, "…")
			if strings.Contains(tt.want, " … ") {
				if got := err.Error(); !strings.HasPrefix(got, first) || !strings.HasSuffix(got, strings.TrimSpace(last)) || strings.Contains(got, "\n") {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
			} else if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

// Outside EC2 the address of the metadata service is often a black hole.
func TestSilentMetadataServiceIsGivenUp(t *testing.T) {
	isolate(t)
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(release) })
	os.Unsetenv("AWS_EC2_METADATA_DISABLED")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent.URL)
	t.Setenv("AWS_REGION", "eu-west-1")
	within(t, metadataLimit+time.Second, func() {
		if _, err := New(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "there are none in the environment") {
			t.Errorf("got %v", err)
		}
	})
}

func TestNetworkErrorsNameTheRemedy(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	tests := []struct {
		name  string
		env   map[string]string
		hint  string
		cause string
	}{
		{"refused", map[string]string{"AWS_ENDPOINT_URL_SSM": "https://" + closed.Addr().String()},
			"check AWS_ENDPOINT_URL, HTTPS_PROXY and the network", "connection refused"},
		{"unknown name", map[string]string{"AWS_ENDPOINT_URL_SSM": "https://no-such-host.invalid"},
			"check the region and the name service", "no-such-host.invalid"},
		{"unknown authority", map[string]string{"AWS_CA_BUNDLE": ""},
			"if a proxy or an endpoint of your own signs here, name its authority in AWS_CA_BUNDLE", "unknown authority"},
		{"no TLS", map[string]string{"AWS_ENDPOINT_URL_SSM": strings.Replace(plain.URL, "http:", "https:", 1)},
			"the endpoint doesn't speak TLS; check AWS_ENDPOINT_URL", "server gave HTTP response to HTTPS client"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			newFakeAPI(t, sessionAnswer())
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			_, err := newClient(t, Options{}).StartSession(t.Context(), StartInput{Target: "mi-1"})
			if err == nil || !strings.HasSuffix(err.Error(), "; "+tt.hint) || !strings.Contains(err.Error(), tt.cause) {
				t.Errorf("got %v, want …%s…; %s", err, tt.cause, tt.hint)
			}
			if err != nil && strings.Contains(err.Error(), "operation error") {
				t.Errorf("the line holds the SDK's chain: %v", err)
			}
		})
	}
}
