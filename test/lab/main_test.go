package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"go.uber.org/goleak"
)

// Variables that give the test binary another role.
const (
	roleVariable  = "LAB_TEST_PLUGIN" // ssh's ProxyCommand; the value is the plugin's path
	leaveVariable = "LAB_TEST_LEAVE"  // start a session and leave it behind
)

func TestMain(m *testing.M) {
	if plugin := os.Getenv(roleVariable); plugin != "" {
		fmt.Fprintln(os.Stderr, "proxy command:", actAsProxyCommand(plugin, os.Args[1], os.Args[2]))
		os.Exit(1)
	}
	if os.Getenv(leaveVariable) != "" {
		target, _, _ := strings.Cut(os.Getenv("SSM_SSH_LAB_TARGETS"), " ")
		if _, _, _, err := startSession(target, "22"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// startSession calls StartSession as the environment has it.
func startSession(target, port string) (cfg aws.Config, in *ssm.StartSessionInput, out *ssm.StartSessionOutput, err error) {
	ctx := context.Background()
	if cfg, err = config.LoadDefaultConfig(ctx); err != nil {
		return cfg, nil, nil, err
	}
	in = &ssm.StartSessionInput{Target: &target, DocumentName: aws.String(sshDocument),
		Parameters: map[string][]string{"portNumber": {port}}}
	out, err = ssm.NewFromConfig(cfg).StartSession(ctx, in)
	return cfg, in, out, err
}

// actAsProxyCommand does what `aws ssm start-session` does: StartSession through the SDK, then the
// plugin in its own place. It returns only on failure.
func actAsProxyCommand(plugin, target, port string) error {
	cfg, in, out, err := startSession(target, port)
	if err != nil {
		return err
	}
	answer, err := json.Marshal(map[string]*string{"SessionId": out.SessionId, "StreamUrl": out.StreamUrl, "TokenValue": out.TokenValue})
	if err != nil {
		return err
	}
	request, err := json.Marshal(map[string]any{"Target": target, "DocumentName": in.DocumentName, "Parameters": in.Parameters})
	if err != nil {
		return err
	}
	// session-manager-plugin RESPONSE REGION OPERATION PROFILE REQUEST ENDPOINT
	args := []string{plugin, string(answer), cfg.Region, "StartSession", "", string(request), os.Getenv("AWS_ENDPOINT_URL_SSM")}
	return syscall.Exec(plugin, args, os.Environ())
}
