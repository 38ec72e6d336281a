package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/testenv"
)

// The roles that the test binary plays in processes of its own.
const (
	roleVariable = "BENCH_ROLE"
	// pluginRole is ssh's ProxyCommand with the arguments node and port: StartSession, then the
	// official plugin in its own place, as the AWS CLI would have it, only faster.
	pluginRole = "plugin"
	// paceRole downloads from a port and prints how long it took.
	paceRole = "pace"

	// pluginVariable is where the plugin lies.
	pluginVariable = "BENCH_PLUGIN"
	// cpuVariable names a file for the plugin's processor time. With it the plugin is a child.
	cpuVariable = "BENCH_CPU"

	document = "AWS-StartSSHSession"
)

// play runs a role and returns the exit status.
func play(role string) int {
	var err error
	switch role {
	case pluginRole:
		err = playPlugin(os.Args[1], os.Args[2])
	case paceRole:
		err = playPace(os.Args[1], os.Args[2], os.Args[3])
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func playPlugin(node, port string) error {
	ctx := context.Background()
	api, err := awsapi.New(ctx, awsapi.Options{})
	if err != nil {
		return err
	}
	parameters := map[string][]string{"portNumber": {port}}
	session, err := api.StartSession(ctx, awsapi.StartInput{Target: node, Document: document, Parameters: parameters})
	if err != nil {
		return err
	}
	answer, err := json.Marshal(map[string]string{"SessionId": session.ID, "StreamUrl": session.StreamURL, "TokenValue": session.Token})
	if err != nil {
		return err
	}
	request, err := json.Marshal(map[string]any{"Target": node, "DocumentName": document, "Parameters": parameters})
	if err != nil {
		return err
	}
	// session-manager-plugin RESPONSE REGION OPERATION PROFILE REQUEST ENDPOINT
	plugin := os.Getenv(pluginVariable)
	args := []string{plugin, string(answer), api.Region(), "StartSession", "", string(request), os.Getenv("AWS_ENDPOINT_URL_SSM")}
	account := os.Getenv(cpuVariable)
	if account == "" {
		return syscall.Exec(plugin, args, os.Environ())
	}
	signal.Ignore(syscall.SIGHUP) // from ssh, which doesn't wait for its ProxyCommand
	cmd := exec.Command(plugin, args[1:]...)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	err = cmd.Run()
	if cmd.ProcessState == nil {
		return err
	}
	// Under another name first: who waits for the file finds all of it.
	if err := os.WriteFile(account+".new", fmt.Append(nil, (cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Nanoseconds()), 0o600); err != nil {
		return err
	}
	return os.Rename(account+".new", account)
}

// buildPlugin builds the official plugin from the module that pins it. The result stays in the
// user's cache, where the next run's go build finds it up to date.
var buildPlugin = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "ssm-ssh-test", "session-manager-plugin")
	cmd := exec.Command("go", "build", "-C", "../plugin", "-o", path, "github.com/aws/session-manager-plugin/src/sessionmanagerplugin-main")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the plugin: %w: %s", err, out)
	}
	return path, nil
})

// usePlugin prepares the peer: stock ssh with the plugin behind it.
func (r *rig) usePlugin() {
	r.Helper()
	plugin, err := buildPlugin()
	if err != nil {
		r.Skip(err)
	}
	r.env = append(r.env, pluginVariable+"="+plugin,
		"SSL_CERT_FILE="+r.setting("AWS_CA_BUNDLE"),                                 // the plugin's websocket knows no AWS_CA_BUNDLE
		"PATH="+filepath.Dir(plugin)+string(os.PathListSeparator)+os.Getenv("PATH")) // the AWS CLI looks there
	out, err := exec.Command(plugin, "--version").Output()
	if err != nil {
		r.Fatal(err)
	}
	table.Lock()
	defer table.Unlock()
	table.plugin = strings.TrimSpace(string(out))
}

// throughPlugin runs a command on the node by ssh and the plugin. The processor time is of both.
func (r *rig) throughPlugin(stdin, stdout *os.File, command string) sample {
	r.Helper()
	account := filepath.Join(r.dir, "cpu")
	os.Remove(account)
	s := r.runWith(stdin, stdout, r.ssh, r.stockArgs(r.pluginCommand(cpuVariable+"="+account), command)...)
	for range 200 { // the plugin may outlive ssh a little
		text, err := os.ReadFile(account)
		if err == nil {
			var cpu time.Duration
			fmt.Sscan(string(text), &cpu)
			s.cpu += cpu
			return s
		}
		<-time.After(20 * time.Millisecond)
	}
	r.Fatalf("the plugin does not end: %+v", s)
	return s
}

// coldPlugin is a command by ssh and the plugin, with nothing else in between.
func (r *rig) coldPlugin(command string) sample {
	r.Helper()
	return r.run(r.ssh, r.stockArgs(r.pluginCommand(), command)...)
}

// pluginCommand is ssh's ProxyCommand that becomes the plugin.
func (r *rig) pluginCommand(settings ...string) string {
	r.Helper()
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	words := append([]string{"env", roleVariable + "=" + pluginRole}, settings...)
	return strings.Join(append(words, self, "%h", "%p"), " ")
}

// coldCLI is a command by ssh, the AWS CLI and the plugin, as AWS documents it.
func (r *rig) coldCLI(command string) sample {
	r.Helper()
	aws, err := testenv.Find("aws")
	if err != nil {
		r.Fatal(err)
	}
	// --endpoint-url: an older CLI knows no AWS_ENDPOINT_URL.
	proxy := aws + " --endpoint-url " + r.setting("AWS_ENDPOINT_URL_SSM") + " ssm start-session --target %h --document-name " + document + " --parameters portNumber=%p"
	return r.run(r.ssh, r.stockArgs(proxy, command)...)
}

func (r *rig) stockArgs(proxy, command string) []string {
	return []string{"-F", filepath.Join(r.lab.Dir(), "config"), "-o", "BatchMode=yes", "-o", "ProxyCommand=" + proxy, r.lab.Targets()[0], command}
}
