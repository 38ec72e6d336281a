package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// awsCLI is where distributions put it. A shim that comes first in PATH is not what we test with.
const awsCLI = "/usr/bin/aws"

// aws runs the AWS CLI against the lab and decodes its answer.
func (s *stock) aws(ctx context.Context, args ...string) (map[string]any, error) {
	cmd := exec.CommandContext(ctx, awsCLI, append(args, "--endpoint-url", s.endpoint(), "--output", "json")...)
	cmd.Env = s.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	var answer map[string]any
	return answer, json.Unmarshal(out.Bytes(), &answer)
}

func (s *stock) endpoint() string {
	for _, kv := range s.lab.Env() {
		if url, ok := strings.CutPrefix(kv, "AWS_ENDPOINT_URL_SSM="); ok {
			return url
		}
	}
	return ""
}

// sessions returns the states of the sessions that describe-sessions lists.
func (s *stock) sessions(t *testing.T, state string) map[string]string {
	t.Helper()
	answer, err := s.aws(t.Context(), "ssm", "describe-sessions", "--state", state,
		"--filters", "key=Target,value="+s.lab.Targets()[0])
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, item := range answer["Sessions"].([]any) {
		fields := item.(map[string]any)
		found[fields["SessionId"].(string)] = fields["Status"].(string)
	}
	return found
}

func needAWSCLI(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(awsCLI); err != nil {
		t.Skip(err)
	}
}

// TestAWSCLIProxyCommand is what AWS's own documentation tells users to put into ~/.ssh/config.
func TestAWSCLIProxyCommand(t *testing.T) {
	needAWSCLI(t)
	s := startStock(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s.env = append(s.env, "PATH="+filepath.Dir(s.plugin)+":"+os.Getenv("PATH"))
	s.proxy = awsCLI + " ssm start-session --target %h --document-name AWS-StartSSHSession --parameters portNumber=%p --endpoint-url " + s.endpoint()
	held := make(chan error, 1)
	go func() {
		_, err := s.ssh(ctx, nil, "echo up; sleep 60")
		held <- err
	}()
	waitFor(t, func() bool { return s.lab.Counts().MessagesDown > 10 })
	active := s.sessions(t, "Active")
	if len(active) != 1 {
		t.Fatalf("active sessions: %v", active)
	}
	for id, state := range active {
		if state != "Connected" {
			t.Errorf("session is %s", state)
		}
		if _, err := s.aws(ctx, "ssm", "terminate-session", "--session-id", id); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-held; err == nil {
		t.Error("ssh ended well although its session was terminated")
	}
	waitFor(t, func() bool { c := s.lab.Counts(); return c.LiveSessions == 0 && c.LiveWorkers == 0 })
	if active := s.sessions(t, "Active"); len(active) != 0 {
		t.Errorf("still active: %v", active)
	}
	for id, state := range s.sessions(t, "History") {
		if _, ok := active[id]; !ok || state != "Terminated" {
			t.Errorf("history: %s %s", id, state)
		}
	}
}

func TestAWSCLIQueries(t *testing.T) {
	needAWSCLI(t)
	s := startStock(t, lab.Options{})
	target := s.lab.Targets()[0]
	tests := []struct {
		name    string
		prepare func()
		args    []string
		want    string // within the answer, or within the error
	}{
		{"connection status", nil, []string{"ssm", "get-connection-status", "--target", target}, `"Status":"connected"`},
		{"instance information", nil, []string{"ssm", "describe-instance-information"}, `"InstanceId":"` + target},
		{"identity", nil, []string{"sts", "get-caller-identity"}, `"Account":"123456789012"`},
		{"unknown target", nil, []string{"ssm", "start-session", "--target", "mi-00000000000000000", "--document-name", "AWS-StartSSHSession"},
			"(TargetNotConnected) when calling the StartSession operation"},
		{"unknown document", nil, []string{"ssm", "start-session", "--target", target, "--document-name", "None-Such"}, "(InvalidDocument)"},
		{"resume of nothing", nil, []string{"ssm", "resume-session", "--session-id", "none"}, "(DoesNotExistException)"},
		{"terminate of nothing", nil, []string{"ssm", "terminate-session", "--session-id", "none"}, `"SessionId":"none"`},
		{"access denied", func() { s.lab.Faults().FailAPI("GetConnectionStatus", "AccessDeniedException", 1) },
			[]string{"ssm", "get-connection-status", "--target", target}, "(AccessDeniedException) when calling the GetConnectionStatus operation: User: arn"},
		{"throttled, then not", func() { s.lab.Faults().FailAPI("GetConnectionStatus", "ThrottlingException", 1) },
			[]string{"ssm", "get-connection-status", "--target", target}, `"Status":"connected"`},
		{"agent stopped", func() { s.lab.Node(0).StopAgent() }, []string{"ssm", "get-connection-status", "--target", target}, `"Status":"notconnected"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.prepare != nil {
				tt.prepare()
			}
			answer, err := s.aws(t.Context(), tt.args...)
			got, _ := json.Marshal(answer)
			if text := string(got) + fmt.Sprint(err); !strings.Contains(text, tt.want) {
				t.Errorf("got %s, want %s", text, tt.want)
			}
		})
	}
	wrong := &stock{lab: s.lab, env: append(s.env, "AWS_SECRET_ACCESS_KEY=wrong")}
	if _, err := wrong.aws(t.Context(), "ssm", "get-connection-status", "--target", target); err == nil ||
		!strings.Contains(err.Error(), "InvalidSignatureException") {
		t.Errorf("wrong secret: %v", err)
	}
}

// waitFor polls until ok, for what has no event to wait for.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-limit.C:
			t.Fatal("it does not come to pass")
		case <-tick.C:
		}
	}
}
