package bench

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// The programs that are measured and that measures, built once.
var program, usage string

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role))
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program, usage = filepath.Join(dir, "ssm-ssh"), filepath.Join(dir, "usage")
	testenv.Main(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(dir)
		printTable(os.Stdout)
		os.Exit(status)
	}))
}

// build makes the two programs unless that is done.
func build(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(program); err == nil {
		return
	}
	for _, cmd := range []*exec.Cmd{
		exec.Command("make", "-s", "-C", "../..", "build", "CGO_ENABLED=0", "BIN="+program),
		exec.Command("go", "build", "-o", usage, "./usage"),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
}

// rig is a lab, and two masters on its node: the program's and stock ssh's.
type rig struct {
	testing.TB
	lab         *lab.Lab
	dir         string
	env         []string
	ours, stock string // control paths
	ssh         string // stock ssh
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := newLab(t)
	r.startOurs()
	return r
}

// newLab is a rig without masters.
func newLab(t testing.TB) *rig {
	t.Helper()
	build(t)
	l, err := lab.Start(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the lab: %v", err)
		}
	})
	// A control path is short; t.TempDir's names are not.
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{TB: t, lab: l, dir: dir, ours: filepath.Join(dir, "ours"), stock: filepath.Join(dir, "stock"), ssh: testenv.Tool(t, "ssh")}
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !strings.HasPrefix(name, "AWS_") && !strings.HasPrefix(name, "SS") {
			r.env = append(r.env, kv)
		}
	}
	r.env = append(append(r.env, l.Env()...), "XDG_RUNTIME_DIR="+dir, "XDG_STATE_HOME="+dir)
	return r
}

// setting returns what the lab says of itself by that name.
func (r *rig) setting(name string) string {
	for _, kv := range r.lab.Env() {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	r.Fatalf("the lab sets no %s", name)
	return ""
}

// startOurs makes a master of the program's, by a first call.
func (r *rig) startOurs() {
	r.Helper()
	r.Cleanup(func() { r.run(r.ssh, "-F", "none", "-S", r.ours, "-O", "exit", "x") })
	r.must(r.run(program, "-o", "ControlPersist=yes", "-S", r.ours, r.lab.Targets()[0], "true"))
}

// startStock makes a master of stock ssh's. Its way to the node is a session of ours that only carries
// its bytes.
func (r *rig) startStock() {
	r.Helper()
	target := r.lab.Targets()[0]
	r.Cleanup(func() { r.run(r.ssh, "-F", "none", "-S", r.stock, "-O", "exit", "x") })
	r.must(r.run(r.ssh, "-F", "none", "-S", r.stock, "-o", "ControlMaster=yes", "-o", "ControlPersist=yes",
		"-i", r.setting("SSM_SSH_LAB_KEY"), "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		"-o", "ProxyCommand="+program+" -S none -W 127.0.0.1:"+r.lab.Node(0).SSHPort()+" "+target,
		r.setting("SSM_SSH_LAB_USER")+"@"+target, "true"))
}

// sample is what one call took.
type sample struct {
	took   time.Duration
	memory int64 // bytes, the maximum
	status int
	cpu    time.Duration // of the program and the children that it has waited for
	said   string
}

// run runs a command and measures it.
func (r *rig) run(name string, args ...string) sample {
	r.Helper()
	return r.runWith(nil, nil, name, args...)
}

// runWith runs a command with a stdin and a stdout of the caller's; nil ones are the null device and
// what becomes said.
func (r *rig) runWith(stdin, stdout *os.File, name string, args ...string) sample {
	r.Helper()
	report, w, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	defer report.Close()
	// A file: stock ssh's master keeps its caller's stderr, so that a pipe would not end.
	said, err := os.Create(filepath.Join(r.dir, "said"))
	if err != nil {
		r.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(usage, append([]string{name}, args...)...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = r.env, r.dir, said, said, []*os.File{w}
	if stdin != nil {
		cmd.Stdin = stdin
	}
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	w.Close()
	line, _ := io.ReadAll(report)
	if err := cmd.Wait(); err != nil {
		r.Fatalf("%v: %v", cmd.Args, err)
	}
	var s sample
	if _, err := fmt.Sscan(string(line), &s.took, &s.memory, &s.status, &s.cpu); err != nil {
		r.Fatalf("%v: %q: %v", cmd.Args, line, err)
	}
	if runtime.GOOS != "darwin" { // getrusage(2): bytes there, kilobytes elsewhere
		s.memory <<= 10
	}
	text, err := os.ReadFile(said.Name())
	if err != nil {
		r.Fatal(err)
	}
	s.said = string(bytes.TrimSpace(text))
	return s
}

// must ends the benchmark when a call has failed: a fast failure is no result.
func (r *rig) must(s sample) sample {
	r.Helper()
	if s.status != 0 {
		r.Fatalf("status %d: %s", s.status, s.said)
	}
	return s
}
