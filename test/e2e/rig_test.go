package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if signal.Ignored(syscall.SIGHUP) {
		// As under nohup. What is ignored is so for the programs that are started, too; what is caught, isn't.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	dir, err := os.MkdirTemp("", "ssm-ssh-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary, err = testenv.Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// rig is a lab with a home for the program: everything it writes lies below dir.
type rig struct {
	*testing.T
	lab     *lab.Lab
	dir     string
	runtime string // XDG_RUNTIME_DIR
	env     []string
	limit   time.Duration // of a command
}

// commandLimit ends a command that hangs, unless a test has set another; what hangs has failed.
const commandLimit = 2 * time.Minute

// newRig starts a lab. Whatever the test leaves running is ended, and then no session may live.
func newRig(t *testing.T, opts lab.Options) *rig {
	t.Helper()
	l, err := lab.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	// A control path must be short; t.TempDir's names are not.
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, lab: l, dir: dir, runtime: filepath.Join(dir, "run"), limit: commandLimit}
	if err := os.Mkdir(r.runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	r.env = append(cleanEnv(), l.Env()...)
	r.env = append(r.env, "XDG_RUNTIME_DIR="+r.runtime, "XDG_STATE_HOME="+r.path("state"), "XDG_CONFIG_HOME="+r.path("config"),
		"GORACE=halt_on_error=0 atexit_sleep_ms=0 log_path="+r.path("race"))
	t.Cleanup(r.tearDown)
	return r
}

// cleanEnv is the caller's environment without what could lead the program elsewhere.
func cleanEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); {
		case strings.HasPrefix(name, "AWS_"), strings.HasPrefix(name, "SSH_"), strings.HasPrefix(name, "SSM_SSH_"),
			strings.HasPrefix(name, "ANSIBLE_"), name == "DISPLAY", name == "WAYLAND_DISPLAY":
		default:
			env = append(env, kv)
		}
	}
	return env
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// tearDown ends the masters and the lab, and looks for what must not be there.
func (r *rig) tearDown() {
	r.endMasters()
	if c := r.settled(); c.LiveSessions != 0 {
		r.Errorf("%d sessions left alive", c.LiveSessions)
	}
	if err := r.lab.Close(); err != nil {
		r.Errorf("closing the lab: %v", err)
	}
	if races, _ := filepath.Glob(r.path("race*")); len(races) > 0 {
		text, _ := os.ReadFile(races[0])
		r.Errorf("data race in the program:\n%s", text)
	}
	os.RemoveAll(r.dir)
}

// endMasters asks every master whose socket lies below dir to exit.
func (r *rig) endMasters() {
	filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSocket != 0 {
			r.run(exec.Command("ssh", "-F", "none", "-S", path, "-O", "exit", "x"))
		}
		return nil
	})
}

// settled returns the counts once no session is left, or after a bounded wait.
func (r *rig) settled() lab.Counts { return r.lab.Settle(context.Background(), 8*time.Second) }

// target is the first node's id.
func (r *rig) target() string { return r.lab.Targets()[0] }

// result is what became of a command.
type result struct {
	stdout, stderr string
	status         int // -1: killed
}

// ssh runs the program with a short command line.
func (r *rig) ssh(args ...string) result { return r.run(exec.Command(binary, args...)) }

// command prepares a command in the rig's environment, in a session of its own: no terminal.
func (r *rig) prepare(cmd *exec.Cmd) *exec.Cmd {
	cmd.Env = append(append([]string{}, r.env...), cmd.Env...)
	cmd.Dir = r.dir
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	// A descriptor held by something left behind fails the test below, by time.
	cmd.WaitDelay = r.limit
	return cmd
}

// run runs a command to its end.
func (r *rig) run(cmd *exec.Cmd) result {
	r.Helper()
	var out, errs bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &errs
	}
	r.prepare(cmd)
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	kill := time.AfterFunc(r.limit, func() { cmd.Process.Kill() })
	err := cmd.Wait()
	if !kill.Stop() {
		r.Errorf("%s hung", strings.Join(cmd.Args, " "))
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.Errorf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return result{stdout: out.String(), stderr: errs.String(), status: cmd.ProcessState.ExitCode()}
}

// want checks a result.
func (r *rig) want(got result, status int, stdout, stderr string) {
	r.Helper()
	if got.status != status || got.stdout != stdout || got.stderr != stderr {
		r.Errorf("got status %d, stdout %q, stderr %q\nwant status %d, stdout %q, stderr %q",
			got.status, got.stdout, got.stderr, status, stdout, stderr)
	}
}

// wantSessions checks how many sessions were started so far.
func (r *rig) wantSessions(n int64) {
	r.Helper()
	if got := r.lab.Counts().StartSession; got != n {
		r.Errorf("%d sessions started, want %d", got, n)
	}
}
