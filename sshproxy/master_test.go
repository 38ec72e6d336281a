package sshproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
)

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
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	dir := t.TempDir()
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	writeFile(t, filepath.Join(dir, "a"), string(data), 0o600)
	cmd := exec.CommandContext(testContext(t), testenv.Tool(t, "sftp"), "-F", "none", "-oControlPath="+m.path, "-b", "-", "x")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("put %s/a %s/b\nget %s/b %s/c\n", dir, dir, dir, dir))
	if got := runCommand(t, cmd); got.status != 0 {
		t.Fatalf("sftp: %+v", got)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "c")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
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

func TestKilledPassenger(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	dir := t.TempDir()
	eof := filepath.Join(dir, "eof")
	victim, _ := startStock(t, m.path, "cat >/dev/null; touch "+eof)
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
