package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"ssm-ssh/test/lab"
)

// TestPluginForwardsPort runs the plugin in its mux mode: many connections in one session.
func TestPluginForwardsPort(t *testing.T) {
	const connections, size = 4, 64 << 10
	s := startStock(t, lab.Options{})
	p := newPort(t)
	var echoes sync.WaitGroup
	defer echoes.Wait()
	defer p.l.Close()
	echoes.Go(func() {
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			echoes.Go(func() { io.Copy(c, c); c.Close() })
		}
	})
	local := newPort(t)
	number := local.number()
	local.l.Close()
	stop := s.forward(t, p.number(), number)
	defer stop()
	var conns sync.WaitGroup
	for i := range connections {
		conns.Go(func() {
			c := dialEventually(t, "127.0.0.1:"+number)
			if c == nil {
				return
			}
			defer c.Close()
			data := bytes.Repeat([]byte{byte(i)}, size)
			go c.Write(data)
			got := make([]byte, size)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	conns.Wait()
	if c := s.lab.Counts(); c.StartSession != 1 {
		t.Errorf("%+v", c)
	}
}

// forward runs the plugin as `aws ssm start-session` does for a port-forwarding document.
func (s *stock) forward(t *testing.T, remote, local string) (stop func()) {
	t.Helper()
	r := newRaw(t, s.lab)
	params := map[string][]string{"portNumber": {remote}, "localPortNumber": {local}}
	document := "AWS-StartPortForwardingSession"
	out, err := r.api.StartSession(t.Context(), &ssm.StartSessionInput{Target: &s.lab.Targets()[0], DocumentName: &document, Parameters: params})
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := json.Marshal(map[string]*string{"SessionId": out.SessionId, "StreamUrl": out.StreamUrl, "TokenValue": out.TokenValue})
	request, _ := json.Marshal(map[string]any{"Target": s.lab.Targets()[0], "DocumentName": document, "Parameters": params})
	cmd := exec.Command(s.plugin, string(answer), lab.Region, "StartSession", "", string(request), s.endpoint())
	cmd.Env = s.env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		waitFor(t, func() bool { return s.lab.Counts().LiveSessions == 0 })
	}
}

func dialEventually(t *testing.T, addr string) net.Conn {
	for began := time.Now(); time.Since(began) < rawTimeout; <-time.After(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			return c
		}
	}
	t.Errorf("nobody listens at %s", addr)
	return nil
}

func TestControlEndpoint(t *testing.T) {
	l := startLab(t, lab.Options{Nodes: 2})
	call := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, setting(l, "SSM_SSH_LAB_CONTROL")+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"counts", "GET", "/counts", "", 200, `"start_session":0`},
		{"no faults", "GET", "/faults", "", 200, "{}"},
		{"set faults", "PUT", "/faults", `{"up":{"data":{"loss":0.1}},"api":{"StartSession":{"code":"ThrottlingException","times":2}}}`, 200, ""},
		{"faults", "GET", "/faults", "", 200, `"up":{"data":{"loss":0.1}}`},
		{"misspelled", "PUT", "/faults", `{"upp":{}}`, 400, "upp"},
		{"heal", "PUT", "/faults", `{}`, 200, ""},
		{"cut", "POST", "/cut/client", "", 200, ""},
		{"stop agent by number", "POST", "/node/1/stop-agent", "", 200, ""},
		{"reboot by name", "POST", "/node/" + l.Targets()[0] + "/reboot?down=10ms", "", 200, ""},
		{"no such node", "POST", "/node/7/reboot", "", 404, ""},
		{"no such action", "POST", "/node/0/explode", "", 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if status, text := call(tt.method, tt.path, tt.body); status != tt.status || !strings.Contains(text, tt.want) {
				t.Errorf("%d %s", status, text)
			}
		})
	}
}

func TestRun(t *testing.T) {
	tests := []struct {
		name    string
		command []string
		status  int
		out     string
	}{
		{"environment", []string{"sh", "-c", `echo $AWS_REGION; set -- $SSM_SSH_LAB_TARGETS; echo $#; grep -c mi- "$SSM_SSH_LAB_INVENTORY"`}, 0, lab.Region + "\n2\n2\n"},
		{"status", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"signal", []string{"sh", "-c", "kill -TERM $$"}, 143, ""},
		{"session left", []string{"env", leaveVariable + "=1", os.Args[0]}, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			status, err := lab.Run(t.Context(), lab.Options{Nodes: 2}, 0, lab.Stdio{Out: &out, Err: &errs}, tt.command)
			if err != nil || status != tt.status || !strings.Contains(out.String(), tt.out) {
				t.Errorf("%d, %v, %q, %q", status, err, out.String(), errs.String())
			}
			if left := strings.Contains(errs.String(), "1 left alive"); left != (tt.name == "session left") {
				t.Errorf("summary: %q", errs.String())
			}
		})
	}
}

func TestRunPrintsExports(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var errs bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		status, err := lab.Run(ctx, lab.Options{}, 0, lab.Stdio{Out: w, Err: &errs}, nil)
		w.Close()
		if err == nil && status != 0 {
			err = fmt.Errorf("status %d", status)
		}
		ended <- err
	}()
	line := make([]byte, 64)
	if _, err := io.ReadFull(r, line); err != nil || !strings.HasPrefix(string(line), "export AWS_ENDPOINT_URL='https://127.0.0.1:") {
		t.Errorf("%q, %v", line, err)
	}
	go io.Copy(io.Discard, r)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCloseEndsProcesses: what a session left running on a node ends with the lab.
func TestCloseEndsProcesses(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Options{Logf: logf(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !strings.Contains(sshDirect(t, l, "echo hello"), "hello") {
		t.Fatal("no answer from sshd")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(sshDirect(t, l, "nohup sleep 300 >/dev/null 2>&1 & echo $!")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("it does not run: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	waitFor(t, func() bool { return syscall.Kill(pid, 0) != nil || zombie(pid) })
	if _, err := os.Stat(l.Dir()); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}

// zombie says whether a process has ended without anybody to reap it, as in a container.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// sshDirect runs a command on the first node without the lab's network in between.
func sshDirect(t *testing.T, l *lab.Lab, command string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ssh", "-F", setting(l, "SSM_SSH_CONFIG"), "-o", "BatchMode=yes", "-o", "HostName=127.0.0.1",
		"-o", "HostKeyAlias="+l.Targets()[0], l.Targets()[0], command)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, err.(*exec.ExitError).Stderr)
	}
	return string(out)
}

func TestInProcessSSHD(t *testing.T) {
	l := startLab(t, lab.Options{InProcessSSHD: true})
	if got := sshDirect(t, l, "echo hello; exit 0"); got != "hello\n" {
		t.Errorf("got %q", got)
	}
}

func TestReboot(t *testing.T) {
	l := startLab(t, lab.Options{})
	r, _ := session(t, l)
	if err := l.Node(0).Reboot(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	c := l.Counts()
	if c.LiveWorkers != 0 || c.LiveSessions != 1 {
		t.Errorf("after the reboot: %+v", c)
	}
	r.data("into the void")
	r.await("pause", ofType("pause_publication"))
	if got := sshDirect(t, l, "echo back"); got != "back\n" {
		t.Errorf("got %q", got)
	}
	if _, err := r.api.TerminateSession(t.Context(), &ssm.TerminateSessionInput{SessionId: &r.id}); err != nil {
		t.Fatal(err)
	}
	if c := l.Counts(); c.LiveSessions != 0 {
		t.Errorf("after its termination: %+v", c)
	}
}
