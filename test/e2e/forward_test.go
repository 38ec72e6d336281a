package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// freePort is a port that nothing listened on a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// banner connects until it is greeted as sshd greets, or until a bounded time is over.
func banner(port int) (string, error) {
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(20 * time.Millisecond) {
		line, err := greeting(port)
		if err == nil || time.Now().After(deadline) {
			return line, err
		}
	}
}

func greeting(port int) (string, error) {
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	return bufio.NewReader(conn).ReadString('\n')
}

// TestForwardEndsWithItsClient has a second client keep the master alive: what the first asked of it
// must go all the same.
func TestForwardEndsWithItsClient(t *testing.T) {
	r := newRig(t, lab.Options{})
	for _, how := range []string{"implicit", "none"} {
		t.Run(how, func(t *testing.T) {
			port := freePort(t)
			args := []string{"-N", "-L", fmt.Sprintf("%d:127.0.0.1:%s", port, r.lab.Node(0).SSHPort()), r.target()}
			if how == "none" {
				args = append([]string{"-S", "none"}, args...)
			}
			client := r.prepare(exec.Command(binary, args...))
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := banner(port)
			if err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
				t.Errorf("through the forward: %q, %v", line, err)
			}
			client.Process.Signal(syscall.SIGTERM)
			client.Wait()
			if status := client.ProcessState.ExitCode(); status != 0 {
				t.Errorf("ssh -N ended by SIGTERM: status %d, want 0", status)
			}
			for deadline := time.Now().Add(5 * time.Second); ; <-time.After(20 * time.Millisecond) {
				if _, err := greeting(port); err != nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the forward outlives its client")
				}
			}
		})
	}
	r.wantSessions(2)
}

func TestForwardCommands(t *testing.T) {
	r := newRig(t, lab.Options{})
	node, sshd := r.target(), r.lab.Node(0).SSHPort()
	path := r.path("cp")
	r.want(r.ssh("-S", path, node, "true"), 0, "", "")
	port := freePort(t)
	local := fmt.Sprintf("%d:127.0.0.1:%s", port, sshd)
	r.want(r.ssh("-S", path, "-O", "forward", "-L", local, node), 0, "", "")
	if line, err := greeting(port); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		t.Errorf("through the forward: %q, %v", line, err)
	}
	r.want(r.ssh("-S", path, "-O", "cancel", "-L", local, node), 0, "", "")
	if _, err := greeting(port); err == nil {
		t.Error("the forward is still there")
	}
	got := r.ssh("-S", path, "-O", "forward", "-R", "0:127.0.0.1:"+sshd, node)
	var chosen int
	if _, err := fmt.Sscanf(got.stdout, "%d\n", &chosen); err != nil || got.status != 0 {
		t.Fatalf("remote forward to port 0: %+v", got)
	}
	if line, err := greeting(chosen); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		t.Errorf("through the remote forward: %q, %v", line, err)
	}
	r.wantSessions(1)
}

func TestStdioForward(t *testing.T) {
	r := newRig(t, lab.Options{})
	to := "127.0.0.1:" + r.lab.Node(0).SSHPort()
	for _, path := range []string{"none", r.path("cp")} {
		r.want(r.ssh("-S", path, r.target(), "true"), 0, "", "")
		cmd := exec.Command(binary, "-S", path, "-W", to, r.target())
		cmd.Stdin = strings.NewReader("no version\r\n")
		if got := r.run(cmd); got.status != 0 || !strings.HasPrefix(got.stdout, "SSH-2.0-") {
			t.Errorf("-S %s -W: %+v", path, got)
		}
		got := r.ssh("-S", path, "-W", "127.0.0.1:1", r.target())
		if got.status != 255 || got.stdout != "" || !strings.Contains(strings.ToLower(got.stderr), "open") {
			t.Errorf("-S %s -W, refused: %+v", path, got)
		}
	}
}
