package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
	"ssm-ssh/ssmchannel"
	"ssm-ssh/test/lab"
)

// TestRemoteHost: only the document that takes a host gets one, and the node is never told its own id.
func TestRemoteHost(t *testing.T) {
	tests := []struct{ document, host, want string }{
		{"", "db.example", ""},
		{"AWS-StartPortForwardingSession", "db.example", ""},
		{remoteHostDocument, "db.example", "db.example"},
		{remoteHostDocument, "mi-0123456789abcdef0", "localhost"},
		{remoteHostDocument, "i-0123456789abcdef0.eu-west-1", "localhost"},
	}
	for _, tt := range tests {
		if got := remoteHost(&sshopt.Options{SSMDocument: tt.document, Host: tt.host}); got != tt.want {
			t.Errorf("%s to %s: host %q, want %q", tt.document, tt.host, got, tt.want)
		}
	}
}

// TestEncryptedSession holds the channel's configuration to a session that asks for encryption. What the
// program starts are sessions to a port, which never do, so a shell's stands in for it.
func TestEncryptedSession(t *testing.T) {
	tests := []struct {
		name, refusal string
		keys          int64
		want          string // of the error; "" for none
	}{
		{name: "granted", keys: 1},
		{name: "refused by KMS", refusal: "AccessDeniedException", want: "n: get a data key: AccessDeniedException"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			l, err := lab.Start(ctx, lab.Options{Encrypt: true, RequireChallenge: true, InProcessSSHD: true})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for _, kv := range l.Env() {
				name, value, _ := strings.Cut(kv, "=")
				t.Setenv(name, value)
			}
			if tt.refusal != "" {
				l.Faults().FailAPI("GenerateDataKey", tt.refusal, 0)
			}
			api, err := awsapi.New(ctx, awsapi.Options{Target: "n", Logf: report.Discard})
			if err != nil {
				t.Fatal(err)
			}
			defer api.Close()
			node := target.Target{NodeID: l.Targets()[0]}
			session, err := api.StartSession(ctx, awsapi.StartInput{Target: node.NodeID})
			if err != nil {
				t.Fatal(err)
			}
			defer terminate(api, session.ID)
			conn, err := ssmchannel.Dial(ctx, ssmchannel.Session(session), channelConfig(api, node, new(sshopt.Options), report.Discard))
			if err != nil {
				if err = dialError(ctx, "n", err); tt.want == "" || !strings.HasPrefix(err.Error(), tt.want) {
					t.Error(err)
				}
				return
			}
			defer conn.Close()
			if tt.want != "" {
				t.Fatal("the session was opened")
			}
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.WriteString(conn, "exit\n"); err != nil {
				t.Error(err)
			}
			if text, err := io.ReadAll(conn); err != nil || !strings.Contains(string(text), "exit") { // the echo
				t.Errorf("read %q, %v", text, err)
			}
			if n := l.Counts().DataKeys; n != tt.keys {
				t.Errorf("%d data keys", n)
			}
		})
	}
}
