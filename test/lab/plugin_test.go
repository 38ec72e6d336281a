package lab_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

const (
	buildLimit = 4 * time.Minute
	// closeLimit bounds the end of a lab: what is not over by then never will be.
	closeLimit = 30 * time.Second
)

// buildPlugin builds the official plugin from the module that pins it. The result stays in the
// user's cache, where the next run's go build finds it up to date.
var buildPlugin = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "ssm-ssh-test", "session-manager-plugin")
	// The first time it may have to be fetched; the go command itself waits for ever.
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-C", "../plugin", "-o", path, "github.com/aws/session-manager-plugin/src/sessionmanagerplugin-main")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the plugin: %w: %s", err, out)
	}
	return path, nil
})

// stock is OpenSSH with the official plugin behind it, aimed at one node of a lab.
type stock struct {
	lab    *lab.Lab
	plugin string
	proxy  string // ssh's ProxyCommand
	env    []string
}

func startStock(t *testing.T, opts lab.Options) *stock {
	t.Helper()
	plugin, err := buildPlugin()
	if err != nil {
		testenv.Missing(t, err.Error())
	}
	opts.Logf = logf(t)
	l, err := lab.Start(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeInTime(t, l) })
	s := &stock{lab: l, plugin: plugin, env: append(os.Environ(), l.Env()...)}
	s.proxy = fmt.Sprintf("env %s=%s %s %%h %%p", roleVariable, s.plugin, os.Args[0])
	for _, kv := range l.Env() {
		if ca, ok := strings.CutPrefix(kv, "AWS_CA_BUNDLE="); ok {
			s.env = append(s.env, "SSL_CERT_FILE="+ca) // the plugin's websocket knows no AWS_CA_BUNDLE
		}
	}
	return s
}

// closeInTime ends a lab; one that does not end says where it hangs.
func closeInTime(t *testing.T, l *lab.Lab) {
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(closeLimit):
		stacks := make([]byte, 1<<20)
		t.Fatalf("the lab does not end:\n%s", stacks[:runtime.Stack(stacks, true)])
	}
}

// logf sends the lab's lines to the test's log while the test runs.
func logf(t *testing.T) func(int, string, ...any) {
	var mu sync.Mutex
	over := false
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	})
	began := time.Now()
	return func(level int, format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			t.Logf("%6.3f "+format, append([]any{time.Since(began).Seconds()}, args...)...)
		}
	}
}

// command is stock ssh that runs a command on the first node.
func (s *stock) command(ctx context.Context, command ...string) *exec.Cmd {
	args := append([]string{"-F", filepath.Join(s.lab.Dir(), "config"), "-o", "BatchMode=yes", "-o", "ProxyCommand=" + s.proxy,
		s.lab.Targets()[0]}, command...)
	cmd := exec.CommandContext(ctx, "ssh", args...)
	cmd.Env = s.env
	return cmd
}

// ssh runs a command on the first node.
func (s *stock) ssh(ctx context.Context, stdin []byte, command ...string) ([]byte, error) {
	cmd := s.command(ctx, command...)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.Bytes(), nil
}

func TestPluginRunsCommand(t *testing.T) {
	s := startStock(t, lab.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	began := time.Now()
	out, err := s.ssh(ctx, nil, "echo", "hello")
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("got %q, %v", out, err)
	}
	t.Logf("cold: %v, %+v", time.Since(began), s.lab.Counts())
}
