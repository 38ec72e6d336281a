package sshproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
)

// testMaster is a master of ours over a real sshd, serving in this process.
type testMaster struct {
	*Master
	path string
	done chan struct{}
	err  error // of Serve, after done
}

// startMaster serves on a new socket until the test ends.
func startMaster(t *testing.T, n *node, cfg MasterConfig) *testMaster {
	t.Helper()
	return startMasterOver(t, n.dial(t), n.clientConfig(new(logBook)), cfg)
}

// startMasterOver is startMaster with a connection and a client of the caller's choice.
func startMasterOver(t *testing.T, conn net.Conn, clientCfg Config, cfg MasterConfig) *testMaster {
	t.Helper()
	path := filepath.Join(shortDir(t), "ctl")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(testContext(t), conn, clientCfg)
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.PersistSet {
		cfg.PersistSet, cfg.Persist = true, -1
	}
	m := &testMaster{Master: NewMaster(client, cfg), path: path, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(m.done)
		m.err = m.Serve(ctx, l)
	}()
	t.Cleanup(func() {
		cancel()
		<-m.done
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return m
}

// shortDir is a folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mux")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// stockSSH runs OpenSSH's client on a control socket, with a host that exists nowhere.
func stockSSH(t *testing.T, path string, args ...string) *exec.Cmd {
	t.Helper()
	args = append([]string{"-F", "none", "-oProxyCommand=false", "-S", path}, args...)
	return exec.CommandContext(testContext(t), testenv.Tool(t, "ssh"), args...)
}

// startStock runs a command through OpenSSH's client and returns once it runs. Its stdin stays open.
func startStock(t *testing.T, path, command string) (*exec.Cmd, io.Writer) {
	t.Helper()
	cmd := stockSSH(t, path, "x", "echo up; "+command)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("up\n"))); err != nil {
		t.Fatal(err)
	}
	return cmd, in
}

// result is what a program left.
type result struct {
	stdout, stderr string
	status         int
}

func runCommand(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// dialMaster connects a client of ours.
func dialMaster(t *testing.T, path string) *MuxClient {
	t.Helper()
	c, err := DialMux(testContext(t), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// runMux runs a command through a master with our client.
func runMux(t *testing.T, path string, req MuxSessionRequest) (stdout string, status int, ok bool) {
	t.Helper()
	c, err := DialMux(testContext(t), path)
	if err != nil {
		t.Error(err)
		return "", -1, false
	}
	defer c.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Error(err)
		return "", -1, false
	}
	defer r.Close()
	req.Stdout = w
	s, err := c.NewSession(testContext(t), req)
	w.Close()
	if err != nil {
		t.Error(err)
		return "", -1, false
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	status, ok = s.Wait()
	return string(out), status, ok
}

// startStockMaster runs OpenSSH's own master for the node.
func startStockMaster(t *testing.T, n *node) (path string) {
	t.Helper()
	path = filepath.Join(shortDir(t), "ctl")
	cmd := exec.Command(testenv.Tool(t, "ssh"), "-F", "none", "-M", "-N", "-S", path, "-i", n.key,
		"-oUserKnownHostsFile="+n.knownHosts, "-oHostKeyAlias=node", "-oStrictHostKeyChecking=yes",
		"-oProxyCommand="+testenv.Tool(t, "sshd")+" -i -f "+n.config, "node")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	// Killed, since it may sleep through a SIGTERM that comes at the wrong moment.
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-exited })
	awaitFile(t, path)
	return path
}

// awaitFile polls for what another process makes.
func awaitFile(t *testing.T, path string) {
	t.Helper()
	await(t, path, func() bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}

// await polls a condition that another process brings about.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx := testContext(t)
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func tryMux(t *testing.T, path, command string) error {
	c, err := DialMux(testContext(t), path)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.NewSession(testContext(t), MuxSessionRequest{Command: command})
	if err != nil {
		return err
	}
	if status, ok := s.Wait(); status != 0 || !ok {
		return fmt.Errorf("ended with %d %v", status, ok)
	}
	return nil
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
