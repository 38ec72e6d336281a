package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const examples = "../examples/"

func TestIAMPolicyGrantsWhatIsCalled(t *testing.T) {
	text, err := os.ReadFile(examples + "iam-policy.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Version   string
		Statement []struct {
			Sid, Effect string
			Action      any
			Resource    any
			Condition   map[string]map[string]string
		}
	}
	if err := json.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	var granted []string
	for _, s := range policy.Statement {
		switch action := s.Action.(type) {
		case string:
			granted = append(granted, action)
		case []any:
			for _, a := range action {
				granted = append(granted, a.(string))
			}
		}
	}
	slices.Sort(granted)
	want := []string{"ssm:DescribeSessions", "ssm:ResumeSession", "ssm:StartSession", "ssm:TerminateSession", "ssmmessages:OpenDataChannel"}
	if policy.Version != "2012-10-17" || !slices.Equal(granted, want) {
		t.Errorf("version %q grants %q, want %q", policy.Version, granted, want)
	}
}

func TestSSHConfigNamesTheNode(t *testing.T) {
	path, err := filepath.Abs(examples + "ssh_config")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	opts, err := sshopt.Parse([]string{"db1"}, sshopt.Environment{
		Args0: "ssm-ssh", Home: home, LocalUser: "me", OwnConfig: path,
		UserConfig: home + "/none", SystemConfig: home + "/none",
	})
	if err != nil {
		t.Fatal(err)
	}
	if opts.SSMTarget != "mi-0123456789abcdef0" || opts.SSMRegion != "eu-west-1" || opts.User != "admin" || !opts.ControlPersist.Set {
		t.Errorf("target %q, region %q, user %q, persist %+v", opts.SSMTarget, opts.SSMRegion, opts.User, opts.ControlPersist)
	}
}

// ansible runs one of Ansible's programs in the folder of the examples.
func ansible(t *testing.T, name string, args ...string) string {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command(testenv.Tool(t, name), args...)
	cmd.Dir = examples
	cmd.Env = append(os.Environ(), "ANSIBLE_HOME="+home, "ANSIBLE_LOCAL_TEMP="+home, "ANSIBLE_CONFIG=ansible.cfg", "ANSIBLE_NOCOLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "[WARNING]") {
		t.Errorf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func TestAnsibleReadsInventoryAndPlaybook(t *testing.T) {
	got := ansible(t, "ansible-playbook", "-i", "inventory.ini", "site.yml", "--list-hosts")
	for _, host := range []string{"i-0123456789abcdef0", "mi-0123456789abcdef0.eu-west-1", "db1"} {
		if !strings.Contains(got, " "+host+"\n") {
			t.Errorf("%s isn't a host:\n%s", host, got)
		}
	}
	ansible(t, "ansible-playbook", "-i", "inventory.ini", "site.yml", "--syntax-check")
}

// What `make demo` runs, with the program as these tests are built.
func TestDemo(t *testing.T) {
	testenv.Need(t, "ansible-playbook", "sshd", "ssh", "sftp")
	program := filepath.Join(t.TempDir(), "ssm-ssh")
	if out, err := exec.Command("go", "build", "-o", program, module+"/cmd/ssm-ssh").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(program, "lab", "--nodes", "2", "--", examples+"demo.sh")
	cmd.Env = append(os.Environ(), "SSM_SSH="+program, "XDG_RUNTIME_DIR=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, line := range []string{"SSM sessions started  2 (1 per node)", "SSM sessions left     0", "0 failed, 0 warnings"} {
		if !strings.Contains(string(out), line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
	_, table, _ := strings.Cut(string(out), "\ntasks ok")
	t.Logf("tasks ok%s", table)
}
