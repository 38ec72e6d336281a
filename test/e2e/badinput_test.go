package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ssm-ssh/test/lab"
)

// TestBadInput holds what a user can get wrong, and what can be wrong with what the user relies on:
// each is one clear text, 255, and no session left.
func TestBadInput(t *testing.T) {
	r := newRig(t, lab.Options{Nodes: 2, Timing: lab.Timing{CrashSilence: time.Second}})
	node, second := r.lab.Targets()[0], r.lab.Targets()[1]
	long := "/tmp/" + strings.Repeat("x", 103)
	tests := []struct {
		name  string
		fault lab.FaultSet
		env   []string
		setUp func()
		args  []string
		want  string // stderr, exact; or, ending in "…", its beginning
	}{
		{name: "unknown option", args: []string{"-o", "Nonsense=1", node},
			want: "command-line: line 0: Bad configuration option: nonsense\r\n"},
		{name: "unknown flag", args: []string{"-Z", node}, want: "unknown option -- Z\r\nusage: …"},
		{name: "no value", args: []string{"-o", "ControlPersist"},
			want: "command-line line 0: no argument after keyword \"controlpersist\"\r\n"},
		{name: "unknown plain host", args: []string{"no.such.host.invalid", "true"},
			want: "ssh: Could not resolve hostname no.such.host.invalid: Name or service not known\r\n"},
		{name: "plain host that refuses", args: []string{"-F", "none", "-p", "1", "127.0.0.1", "true"},
			want: "ssh: connect to host 127.0.0.1 port 1: Connection refused\r\n"},
		{name: "unknown node", args: []string{"mi-00000000000000000", "true"},
			want: "ssm-ssh: mi-00000000000000000: start session: …"},
		{name: "no credentials", args: []string{node, "true"},
			env:  []string{"AWS_PROFILE=", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_CONFIG_FILE=/dev/null"},
			want: "ssm-ssh: " + node + ": …"},
		{name: "no region", args: []string{node, "true"},
			env:  []string{"AWS_PROFILE=", "AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_CONFIG_FILE=/dev/null"},
			want: "ssm-ssh: …"},
		{name: "expired token", args: []string{node, "true"}, fault: apiFault("StartSession", "ExpiredTokenException"),
			want: "ssm-ssh: " + node + ": start session: …"},
		{name: "access denied", args: []string{node, "true"}, fault: apiFault("StartSession", "AccessDeniedException"),
			want: "ssm-ssh: " + node + ": start session: …"},
		{name: "target not connected", args: []string{node, "true"}, fault: apiFault("StartSession", "TargetNotConnected"),
			want: "ssm-ssh: " + node + ": start session: …"},
		{name: "wrong key", args: []string{"-i", r.path("other"), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-F", r.path("keyless"), node, "true"},
			setUp: func() {
				r.run(exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.path("other")))
				r.writeConfig("keyless", node, "UserKnownHostsFile "+r.labEnv("SSM_SSH_LAB_KNOWN_HOSTS"))
			},
			want: r.labEnv("SSM_SSH_LAB_USER") + "@" + node + ": Permission denied (publickey).\r\n"},
		{name: "changed host key", args: []string{"-F", r.path("changed"), node, "true"},
			setUp: func() {
				r.swapHostKeys(node, second)
				r.writeConfig("changed", node, "UserKnownHostsFile "+r.path("swapped"), "IdentityFile "+r.labEnv("SSM_SSH_LAB_KEY"))
			},
			want: "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n…"},
		{name: "unknown host key, nobody to ask", args: []string{"-F", r.path("unknown"), node, "true"},
			setUp: func() {
				r.writeConfig("unknown", node, "UserKnownHostsFile /dev/null", "IdentityFile "+r.labEnv("SSM_SSH_LAB_KEY"))
			},
			want: "Host key verification failed.\r\n"},
		{name: "control path too long", args: []string{"-S", long, node, "true"},
			want: "ControlPath too long ('" + long + "' >= 108 bytes)\r\n"},
		{name: "no control path", args: []string{"-O", "check", "-F", "none", "plain.host"},
			want: "No ControlPath specified for \"-O\" command\r\n"},
		{name: "sshd refused on the node", args: []string{"-p", "1", node, "true"}, want: "ssm-ssh: " + node + ": …"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.setUp != nil {
				tt.setUp()
			}
			r.lab.Faults().Set(tt.fault)
			cmd := exec.Command(binary, tt.args...)
			cmd.Env = tt.env
			got := r.run(cmd)
			prefix, open := strings.CutSuffix(tt.want, "…")
			if got.status != 255 || got.stdout != "" || (open && !strings.HasPrefix(got.stderr, prefix)) || (!open && got.stderr != tt.want) {
				t.Errorf("status %d, stdout %q, stderr\n%q\nwant\n%q", got.status, got.stdout, got.stderr, tt.want)
			}
			t.Logf("%s", got.stderr)
			r.lab.Faults().Clear()
			r.endMasters()
			if c := r.settled(); c.LiveSessions != 0 {
				t.Errorf("%d sessions left", c.LiveSessions)
			}
		})
	}
}

func apiFault(operation, code string) lab.FaultSet {
	return lab.FaultSet{API: map[string]lab.APIFault{operation: {Code: code}}}
}

// writeConfig writes an ssh_config for a node with the port and user of the lab's.
func (r *rig) writeConfig(name, node string, lines ...string) {
	r.Helper()
	text := "Host " + node + "\nPort " + r.lab.Node(0).SSHPort() + "\nUser " + r.labEnv("SSM_SSH_LAB_USER") + "\n" + strings.Join(lines, "\n") + "\n"
	if err := os.WriteFile(r.path(name), []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
}

// swapHostKeys writes a known_hosts in which a node has another's keys.
func (r *rig) swapHostKeys(node, other string) {
	r.Helper()
	text, err := os.ReadFile(r.labEnv("SSM_SSH_LAB_KNOWN_HOSTS"))
	if err != nil {
		r.Fatal(err)
	}
	swapped := strings.ReplaceAll(string(text), node, "gone")
	swapped = strings.ReplaceAll(swapped, other, node)
	swapped = strings.ReplaceAll(swapped, "]:"+r.lab.Node(1).SSHPort(), "]:"+r.lab.Node(0).SSHPort())
	if err := os.WriteFile(r.path("swapped"), []byte(swapped), 0o600); err != nil {
		r.Fatal(err)
	}
}

// TestAgentGoneInMidCommand ends the node's side while a command runs.
func TestAgentGoneInMidCommand(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	cmd := exec.Command(binary, r.target(), "echo started; sleep 60")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	r.prepare(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.lab.Node(0).StopSSHD(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 255 || time.Since(began) > 10*time.Second {
		t.Errorf("status %d after %v, stderr %q", status, time.Since(began), stderr.String())
	}
}
