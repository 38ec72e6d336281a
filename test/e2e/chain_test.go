package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// chained is a lab of two nodes, with a configuration in which a, b and c are plain hosts: the first node's sshd
// by TCP.
func chained(t *testing.T) (r *rig, config string) {
	t.Helper()
	r = newRig(t, lab.Options{Nodes: 2})
	r.open()
	config = r.path("ssh_config")
	text := fmt.Sprintf("Host a b c\n\tHostname 127.0.0.1\n\tPort %s\n\tUser %s\n\tIdentityFile %s\n\tUserKnownHostsFile %s\n\tStrictHostKeyChecking no\n\tLogLevel ERROR\nHost mi-*\n\tInclude %s\n",
		r.lab.Node(0).SSHPort(), r.labEnv("SSM_SSH_LAB_USER"), r.labEnv("SSM_SSH_LAB_KEY"), r.path("known"), r.labEnv("SSM_SSH_CONFIG"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return r, config
}

// TestChains reaches hosts by way of others: SSM nodes, plain hosts, and both in a row.
func TestChains(t *testing.T) {
	testenv.Need(t, "ssh")
	r, config := chained(t)
	one, two := r.lab.Targets()[0], r.lab.Targets()[1]
	for _, tt := range []struct {
		name, program string
		options       []string
		host          string
		sessions      int64 // that are new
	}{
		{"stock ssh behind a node", "ssh", []string{"-o", "ProxyCommand=OURS -W %h:%p " + one}, "b", 1},
		{"again: the same session", "ssh", []string{"-o", "ProxyCommand=OURS -W %h:%p " + one}, "b", 0},
		{"behind a node of its own session", binary, []string{"-o", "ProxyCommand=OURS -S none -W %h:%p " + one}, "b", 1},
		{"jump over a node", binary, []string{"-J", one}, "b", 0},
		{"jump over two nodes", binary, []string{"-J", one + "," + two}, "b", 1},
		{"jump over a plain host", binary, []string{"-J", "a"}, "b", 0},
		{"jump over two plain hosts", binary, []string{"-J", "a,b"}, "c", 0},
		{"jump over a node and a plain host", binary, []string{"-J", one + ",a"}, "b", 0},
		{"a ProxyCommand in a ProxyCommand", binary, []string{"-o", "ProxyCommand=OURS -F CONFIG -o 'ProxyCommand=OURS -W %%h:%%p " + two + "' -W %h:%p a"}, "b", 0},
		{"stock ssh's jump, of which ours is one", "ssh", []string{"-o", "ProxyCommand=OURS -F CONFIG -J " + one + " -W %h:%p a"}, "b", 0},
	} {
		before := r.lab.Counts().StartSession
		var args []string
		for _, o := range append([]string{"-F", config}, tt.options...) {
			args = append(args, strings.NewReplacer("OURS", binary, "CONFIG", config).Replace(o))
		}
		cmd := exec.Command(tt.program, append(args, tt.host, "cat; exit 7")...)
		cmd.Stdin = strings.NewReader("through\n")
		got := r.run(cmd)
		if started := r.lab.Counts().StartSession - before; got != (result{"through\n", "", 7}) || started != tt.sessions {
			t.Errorf("%s: %+v, and %d sessions were started", tt.name, got, started)
		}
	}
}

// A jump that is a plain host is told the node's name and can't know it: SSM is not gone round in silence.
func TestJumpToANode(t *testing.T) {
	r, config := chained(t)
	got := r.ssh("-F", config, "-J", "a", r.target(), "true")
	if got.status != 255 || !strings.Contains(got.stderr, "stdio forwarding failed\r\n") ||
		!strings.HasSuffix(got.stderr, "Connection closed by UNKNOWN port 65535\r\n") {
		t.Errorf("%+v", got)
	}
	r.wantSessions(0)
}

// TestProxyCommands holds the ways of a ProxyCommand to end, and those in which it hands over a connection,
// against stock ssh.
func TestProxyCommands(t *testing.T) {
	testenv.Need(t, "ssh", "python3")
	r, config := chained(t)
	r.run(exec.Command("ssh", "-F", config, "b", "true")) // for the node's key
	dialer := fmt.Sprintf(`python3 -c 'import socket; s = socket.create_connection(("127.0.0.1", %s)); socket.send_fds(socket.socket(fileno=1), [b"x"], [s.fileno()])'`,
		r.lab.Node(0).SSHPort())
	for _, tt := range []struct {
		name    string
		options []string
		status  int
	}{
		{"fails", []string{"ProxyCommand=false"}, 255},
		{"fails with a word", []string{"ProxyCommand=sh -c 'echo no way >&2; exit 7'"}, 255},
		{"isn't there", []string{"ProxyCommand=/none/such"}, 255},
		{"hangs", []string{"ProxyCommand=sleep 60", "ConnectTimeout=1"}, 255},
		{"is none", []string{"ProxyCommand=none"}, 3},
		{"passes a connection", []string{"ProxyCommand=" + dialer, "ProxyUseFdpass=yes"}, 3},
		{"passes none", []string{"ProxyCommand=true", "ProxyUseFdpass=yes"}, 255},
		{"fails to pass one", []string{"ProxyCommand=false", "ProxyUseFdpass=yes"}, 255},
		{"passes one that is none", []string{"ProxyCommand=-", "ProxyUseFdpass=yes"}, 255},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := r.within(t)
			call := func(program string) result {
				args := []string{"-F", config}
				for _, o := range tt.options {
					args = append(args, "-o", o)
				}
				return r.run(exec.Command(program, append(args, "-o", "LogLevel=INFO", "b", "echo done; exit 3")...))
			}
			if stock, ours := call("ssh"), call(binary); stock.status != tt.status || ours != stock {
				t.Errorf("want status %d\nssh  %+v\nours %+v", tt.status, stock, ours)
			}
		})
	}
}

// TestProxyCommandIsStdio is `ProxyCommand -`: whoever calls has made the connection.
func TestProxyCommandIsStdio(t *testing.T) {
	testenv.Need(t, "ssh")
	r, config := chained(t)
	for _, program := range []string{"ssh", binary} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+r.lab.Node(0).SSHPort())
		if err != nil {
			t.Fatal(err)
		}
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		mark := r.path("mark")
		os.Remove(mark)
		cmd := exec.Command(program, "-n", "-F", config, "-o", "ProxyCommand=-", "b", "touch "+mark+"; exit 5")
		cmd.Stdin, cmd.Stdout = file, file
		got := r.run(cmd)
		file.Close()
		r.want(got, 5, "", "")
		if !exists(mark) {
			t.Errorf("%s: the command was not run", program)
		}
	}
}

// A master behind a ProxyCommand must not hold its maker's stderr: who reads that to its end waits for it.
func TestProxyCommandLetsGoOfStderr(t *testing.T) {
	testenv.Need(t, "ssh")
	r, config := chained(t)
	proxy := fmt.Sprintf("ProxyCommand=sh -c 'echo noise >&2; exec %s -F %s -W %%h:%%p a'", binary, config)
	for _, program := range []string{"ssh", binary} {
		path := r.path(fmt.Sprint("cp", freshPaths.Add(1)))
		cmd := exec.Command("sh", "-c", `out=$("$@" 2>&1); echo "got $out"`, "sh", program, "-F", config, "-o", proxy,
			"-M", "-S", path, "-o", "ControlPersist=60", "b", "echo done")
		r.want(r.run(cmd), 0, "got done\n", "")
		r.want(r.run(exec.Command(program, "-F", config, "-S", path, "-O", "exit", "b")), 0, "", "Exit request sent.\r\n")
	}
}
