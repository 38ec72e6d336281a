package sshproxy

import (
	"bufio"
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
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
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
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("no ssh installed")
	}
	cmd := exec.CommandContext(testContext(t), ssh, append([]string{"-F", "none", "-oProxyCommand=false", "-S", path}, args...)...)
	return cmd
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

func TestStockClientOnOurMaster(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"PermitTTY yes"}})
	m := startMaster(t, n, MasterConfig{SendEnv: []string{"LAB_*"}, SetEnv: []string{"LAB_SET=master"}})
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	tests := []struct {
		name  string
		args  []string
		env   string
		stdin string
		want  result
	}{
		{name: "status and streams", args: []string{"x", "echo out; echo err >&2; exit 7"}, want: result{"out\n", "err\n", 7}},
		{name: "true", args: []string{"x", "true"}},
		{name: "death by signal", args: []string{"x", "kill -9 $$"}, want: result{status: 255}},
		{name: "stdin", args: []string{"x", "cat; echo EOF"}, stdin: "abc", want: result{stdout: "abcEOF\n"}},
		{name: "large both ways", args: []string{"x", "cat"}, stdin: big, want: result{stdout: big}},
		{name: "environment", args: []string{"-oSendEnv=LAB_* OTHER", "-oSetEnv=OTHER=1", "x", `echo "$LAB_A|$LAB_SET|$OTHER"`},
			env: "LAB_A=sent", want: result{stdout: "sent|master|\n"}},
		{name: "shell", args: []string{"-T", "x"}, stdin: "echo shell; exit 3\n", want: result{stdout: "shell\n", status: 3}},
		{name: "unknown subsystem", args: []string{"-s", "x", "nope"}, want: result{stderr: "subsystem request failed\r\n", status: 255}},
		{name: "forced terminal without one", args: []string{"-tt", "x", "stty size; tty | sed s/[0-9]*$//"},
			want: result{stdout: "0 0\n/dev/pts/\n", stderr: "Shared connection to x closed.\r\n"}},
		{name: "check", args: []string{"-O", "check", "x"}, want: result{stderr: fmt.Sprintf("Master running (pid=%d)\r\n", os.Getpid())}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := stockSSH(t, m.path, tt.args...)
			cmd.Env = append(os.Environ(), tt.env)
			cmd.Stdin = strings.NewReader(tt.stdin)
			if got := runCommand(t, cmd); got != tt.want {
				t.Errorf("got %.300s, want %.300s", fmt.Sprint(got), fmt.Sprint(tt.want))
			}
		})
	}
}

func TestStockSFTPOnOurMaster(t *testing.T) {
	if _, err := exec.LookPath("sftp"); err != nil {
		t.Skip("no sftp installed")
	}
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	writeFile(t, filepath.Join(dir, "a"), string(data), 0o600)
	cmd := exec.CommandContext(testContext(t), "sftp", "-F", "none", "-oControlPath="+m.path, "-b", "-", "x")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("put %s/a %s/b\nget %s/b %s/c\n", dir, dir, dir, dir))
	if got := runCommand(t, cmd); got.status != 0 {
		t.Fatalf("sftp: %+v", got)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "c")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
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

func TestOurClientOnOurMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{Extensions: []Extension{{Name: "unknown@example.com", Value: "1"}}})
	if out, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "echo hello; exit 44"}); out != "hello\n" || status != 44 || !ok {
		t.Errorf("got %q %d %v", out, status, ok)
	}
	if _, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "kill -9 $$"}); ok {
		t.Errorf("status %d for a death by signal", status)
	}
	c := dialMaster(t, m.path)
	if got := c.Extensions(); len(got) != 1 || got[0].Name != "unknown@example.com" {
		t.Errorf("extensions %v", got)
	}
	for range 3 {
		if pid, err := c.Check(testContext(t)); pid != os.Getpid() || err != nil {
			t.Errorf("check: %d, %v", pid, err)
		}
	}
}

// startStockMaster runs OpenSSH's own master for the node.
func startStockMaster(t *testing.T, n *node) (path string) {
	t.Helper()
	path = filepath.Join(shortDir(t), "ctl")
	cmd := exec.Command("ssh", "-F", "none", "-M", "-N", "-S", path, "-i", n.key,
		"-oUserKnownHostsFile="+n.knownHosts, "-oHostKeyAlias=node", "-oStrictHostKeyChecking=yes",
		"-oProxyCommand=/usr/sbin/sshd -i -f "+n.config, "node")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
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

func TestOurClientOnStockMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	path := startStockMaster(t, n)
	if out, status, ok := runMux(t, path, MuxSessionRequest{Command: "echo hello; exit 5"}); out != "hello\n" || status != 5 || !ok {
		t.Errorf("got %q %d %v", out, status, ok)
	}
	if _, status, ok := runMux(t, path, MuxSessionRequest{Command: "kill -9 $$"}); ok {
		t.Errorf("status %d for a death by signal", status)
	}
	c := dialMaster(t, path)
	if pid, err := c.Check(testContext(t)); pid <= 1 || err != nil {
		t.Errorf("check: %d, %v", pid, err)
	}
	if err := dialMaster(t, path).Exit(testContext(t)); err != nil {
		t.Errorf("exit: %v", err)
	}
	await(t, "the socket to go", func() bool {
		_, err := DialMux(testContext(t), path)
		return errors.Is(err, fs.ErrNotExist)
	})
}

func TestMasterExit(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	running := stockSSH(t, m.path, "x", "echo up; sleep 60")
	out, err := running.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if got := runCommand(t, stockSSH(t, m.path, "-O", "exit", "x")); got != (result{stderr: "Exit request sent.\r\n"}) {
		t.Errorf("got %+v", got)
	}
	_ = running.Wait()
	if got := running.ProcessState.ExitCode(); got != 255 {
		t.Errorf("passenger ended with %d, want 255", got)
	}
	<-m.done
	if m.err != nil {
		t.Errorf("Serve: %v", m.err)
	}
}

func TestMasterStop(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	running := stockSSH(t, m.path, "x", "echo up; read line; exit 6")
	in, err := running.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := running.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if got := runCommand(t, stockSSH(t, m.path, "-O", "stop", "x")); got != (result{stderr: "Stop listening request sent.\r\n"}) {
		t.Errorf("got %+v", got)
	}
	if _, err := DialMux(testContext(t), m.path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after stop: %v", err)
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		t.Fatal(err)
	}
	_ = running.Wait()
	if got := running.ProcessState.ExitCode(); got != 6 {
		t.Errorf("passenger ended with %d, want 6", got)
	}
	<-m.done
	if m.err != nil {
		t.Errorf("Serve: %v", m.err)
	}
}

func TestConnectionLost(t *testing.T) {
	n := startNode(t, nodeOptions{})
	cfg := n.clientConfig(new(logBook))
	cfg.LastWords = func(err error) string { return "lost: " + err.Error() }
	m := startMasterOver(t, n.dial(t), cfg, MasterConfig{Spares: 1})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := dialMaster(t, m.path)
	s, err := c.NewSession(testContext(t), MuxSessionRequest{Command: "echo begun >&2; sleep 60", Stderr: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	stderr := bufio.NewReader(r)
	if line, err := stderr.ReadString('\n'); line != "begun\n" || err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	m.client.wire.Conn.Close() // as a cable does
	if status, ok := s.Wait(); ok {
		t.Errorf("status %d though the connection was lost", status)
	}
	if words, err := io.ReadAll(stderr); !strings.HasPrefix(string(words), "lost: Connection to ") || !strings.HasSuffix(string(words), "\r\n") || err != nil {
		t.Errorf("last words %q, %v", words, err)
	}
	<-m.done
	if m.err == nil {
		t.Error("Serve returned no error")
	}
}

// heldConn takes writes but sends none while it is held, as a link does that is lost.
type heldConn struct {
	net.Conn
	held  atomic.Bool
	holds atomic.Bool // something
}

func (c *heldConn) Write(p []byte) (int, error) {
	if c.held.Load() {
		c.holds.Store(true)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestNewClientWhileTheLinkIsDown(t *testing.T) {
	n := startNode(t, nodeOptions{})
	tests := []struct {
		name       string
		masters    bool        // the master has a ConnectTimeout of its own
		extensions []Extension // of the client
		down       bool        // the link
		unseen     bool        // and that shows only when something has been sent
		spares     int
		want       string // stderr; empty: it waits on
	}{
		{name: "client of ours", extensions: []Extension{ConnectTimeoutExtension(50 * time.Millisecond)}, down: true, want: "patience is over\r\n"},
		{name: "stock client", masters: true, down: true, want: "patience is over\r\n"},
		{name: "link found lost in opening a channel", masters: true, down: true, unseen: true, want: "patience is over\r\n"},
		{name: "link found lost in starting the command", masters: true, down: true, unseen: true, spares: 1, want: "patience is over\r\n"},
		{name: "client with all the time", masters: true, extensions: []Extension{ConnectTimeoutExtension(0)}, down: true},
		{name: "link is up, the queue long", masters: true},
		{name: "nonsense", extensions: []Extension{{Name: timeoutExtension, Value: "soon"}}, down: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := n.clientConfig(new(logBook))
			if tt.masters {
				cfg.ConnectTimeout = 200 * time.Millisecond
			}
			conn := &heldConn{Conn: n.dial(t)}
			cfg.LinkDown = func() bool { return tt.down && (!tt.unseen || conn.holds.Load()) && conn.held.Load() }
			cfg.LastWords = func(err error) string {
				if errors.Is(err, ErrLinkDown) {
					return "patience is over"
				}
				return err.Error()
			}
			m := startMasterOver(t, conn, cfg, MasterConfig{Spares: tt.spares})
			await(t, "spares", func() bool {
				m.queue.mu.Lock()
				defer m.queue.mu.Unlock()
				return len(m.queue.ready) == tt.spares
			})
			conn.held.Store(true)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			c, err := DialMux(testContext(t), m.path, tt.extensions...)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(testContext(t), 500*time.Millisecond)
			defer cancel()
			if tt.want != "" {
				ctx = testContext(t)
			}
			s, err := c.NewSession(ctx, MuxSessionRequest{Command: "true", Stderr: w})
			w.Close()
			if tt.want == "" {
				if ctx.Err() == nil {
					t.Errorf("did not wait: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if status, ok := s.Wait(); ok && status != 255 {
				t.Errorf("status %d", status)
			}
			if words, err := io.ReadAll(r); string(words) != tt.want || err != nil {
				t.Errorf("stderr %q, %v", words, err)
			}
		})
	}
}

func TestPersist(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{PersistSet: true, Persist: 300 * time.Millisecond, Spares: 2})
	start := time.Now()
	if _, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "sleep 0.5"}); status != 0 || !ok {
		t.Errorf("got %d %v", status, ok)
	}
	<-m.done
	if took := time.Since(start); took < 800*time.Millisecond || m.err != nil {
		t.Errorf("ended after %v with %v: the persist time counts from the last client's end", took, m.err)
	}
}

func TestIdleIsToldOnceAfterEachClient(t *testing.T) {
	const busy = 300 * time.Millisecond
	n := startNode(t, nodeOptions{})
	told := make(chan time.Time, 8) // capacity: far more than there should be
	m := startMaster(t, n, MasterConfig{Idle: func() { told <- time.Now() }, IdleAfter: busy / 6})
	<-told // nobody has come yet
	for range 2 {
		began := time.Now()
		if _, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "sleep 0.3"}); status != 0 || !ok {
			t.Fatalf("got %d %v", status, ok)
		}
		if at := <-told; at.Sub(began) < busy {
			t.Errorf("told after %v, while the client was there", at.Sub(began))
		}
	}
	if len(told) > 0 {
		t.Error("told more than once")
	}
}

func TestPersistNeverLosesAClient(t *testing.T) {
	n := startNode(t, nodeOptions{})
	dir := t.TempDir()
	served, over := 0, 0
	for i := range 12 {
		m := startMaster(t, n, MasterConfig{PersistSet: true, Persist: 10 * time.Millisecond, Spares: 1})
		// Connecting as the time runs out: the marker shows whether anything was run.
		timer := time.NewTimer(time.Duration(8+i%5) * time.Millisecond)
		<-timer.C
		marker := filepath.Join(dir, fmt.Sprint(i))
		_, err := os.Lstat(m.path)
		err = errors.Join(err, tryMux(t, m.path, "touch "+marker))
		_, ran := os.Lstat(marker)
		switch {
		case err == nil && ran == nil:
			served++
		case (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, ErrMasterGone)) && ran != nil:
			over++
		default:
			t.Errorf("client: %v, command run: %v", err, ran == nil)
		}
		<-m.done
	}
	t.Logf("served %d, told to start over %d", served, over)
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

func TestHoldKeepsAForegroundMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	path := filepath.Join(shortDir(t), "ctl")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	var log logBook
	client, err := NewClient(testContext(t), n.dial(t), n.clientConfig(&log))
	if err != nil {
		t.Fatal(err)
	}
	m := NewMaster(client, MasterConfig{})
	release := m.Hold()
	done := make(chan error, 1)
	go func() { done <- m.Serve(testContext(t), l) }()
	if _, status, ok := runMux(t, path, MuxSessionRequest{Command: "exit 3"}); status != 3 || !ok {
		t.Errorf("got %d %v", status, ok)
	}
	select {
	case err := <-done:
		t.Fatalf("ended while held: %v", err)
	default:
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKilledPassenger(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	dir := t.TempDir()
	eof := filepath.Join(dir, "eof")
	victim := stockSSH(t, m.path, "x", "echo up; cat >/dev/null; touch "+eof+"; exit 0")
	in, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait()
	awaitFile(t, eof) // the command has seen the end of its input and lived on
	if _, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "exit 9"}); status != 9 || !ok {
		t.Errorf("next session: %d %v", status, ok)
	}
}

func TestSlowPassengerStallsNobody(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := dialMaster(t, m.path)
	slow, err := c.NewSession(testContext(t), MuxSessionRequest{Command: "head -c 8000000 /dev/zero", Stdout: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if out, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "echo quick"}); out != "quick\n" || status != 0 || !ok {
			t.Errorf("got %q %d %v", out, status, ok)
		}
	}
	if count, err := io.Copy(io.Discard, r); count != 8000000 || err != nil {
		t.Errorf("%d bytes, %v", count, err)
	}
	if status, ok := slow.Wait(); status != 0 || !ok {
		t.Errorf("got %d %v", status, ok)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestManySessions(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{Spares: 2})
	once := func(status int) {
		out, got, ok := runMux(t, m.path, MuxSessionRequest{Command: fmt.Sprintf("echo n%d; exit %d", status, status)})
		if out != fmt.Sprintf("n%d\n", status) || got != status || !ok {
			t.Errorf("got %q %d %v, want %d", out, got, ok, status)
		}
	}
	idle := func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.clients) == 0
	}
	once(1)
	await(t, "the first client's end", idle)
	files, goroutines := openFiles(t), runtime.NumGoroutine()
	for i := range 200 {
		once(i % 200)
	}
	var wg sync.WaitGroup
	for i := range 50 { // far beyond sshd's MaxSessions
		wg.Go(func() { once(i) })
	}
	wg.Wait()
	await(t, "the last client's end", idle)
	await(t, "descriptors to be closed", func() bool { return openFiles(t) <= files })
	await(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func TestMaxSessionsWithStockClients(t *testing.T) {
	for max := 1; max <= 3; max++ {
		n := startNode(t, nodeOptions{lines: []string{fmt.Sprint("MaxSessions ", max)}})
		m := startMaster(t, n, MasterConfig{Spares: 2})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				got := runCommand(t, stockSSH(t, m.path, "x", fmt.Sprintf("sleep 0.1; exit %d", i)))
				if got != (result{status: i}) {
					t.Errorf("MaxSessions %d: got %+v, want status %d alone", max, got, i)
				}
			})
		}
		wg.Wait()
	}
}

func TestSessionsRefusedByNode(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"MaxSessions 0"}})
	m := startMaster(t, n, MasterConfig{Spares: 2})
	c := dialMaster(t, m.path)
	_, err := c.NewSession(testContext(t), MuxSessionRequest{Command: "true"})
	var refused *MuxRefusedError
	if !errors.As(err, &refused) || err.Error() != "mux_client_request_session: session request failed: Session open refused by peer" {
		t.Errorf("got %v", err)
	}
}

func TestCloseOnKilledTerminalPassenger(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	dir := t.TempDir()
	hup := filepath.Join(dir, "hup")
	c := dialMaster(t, m.path)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := c.NewSession(testContext(t), MuxSessionRequest{TTY: true, Stdout: w,
		Command: "trap 'touch " + hup + "; exit' HUP; echo up; while :; do sleep 0.05; done"}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	awaitFile(t, hup)
}

func TestQueueForgetsDeadClients(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"MaxSessions 1"}})
	m := startMaster(t, n, MasterConfig{})
	first := dialMaster(t, m.path)
	holder, err := first.NewSession(testContext(t), MuxSessionRequest{Command: "sleep 60", TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	waiting := dialMaster(t, m.path)
	if _, err := waiting.NewSession(ctx, MuxSessionRequest{Command: "touch /nowhere/at/all"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
	waiting.Close()
	if pid, err := dialMaster(t, m.path).Check(testContext(t)); pid == 0 || err != nil {
		t.Errorf("check while the queue is full: %d, %v", pid, err)
	}
	holder.Close()
	if _, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "exit 2"}); status != 2 || !ok {
		t.Errorf("got %d %v", status, ok)
	}
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	if len(m.queue.waiting) != 0 {
		t.Errorf("%d still wait", len(m.queue.waiting))
	}
}
