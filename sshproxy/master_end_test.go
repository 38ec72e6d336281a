package sshproxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestMasterExit(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	running, _ := startStock(t, m.path, "sleep 60")
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
	running, in := startStock(t, m.path, "read line; exit 6")
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

// Who only reads the HELLO, as a list of sessions does, and who only connects keep no master alive; a request
// does, also one that is over at once.
func TestLookingIsNoUse(t *testing.T) {
	const persist = 500 * time.Millisecond
	looks := map[string]func(path string) error{
		"connects": func(path string) error {
			c, err := net.Dial("unix", path)
			if err == nil {
				c.Close()
			}
			return err
		},
		"reads HELLO": func(path string) error {
			c, err := DialMux(testContext(t), path)
			if err == nil {
				c.Close()
			}
			return err
		},
	}
	n := startNode(t, nodeOptions{})
	for name, look := range looks {
		t.Run(name, func(t *testing.T) {
			m := startMaster(t, n, MasterConfig{PersistSet: true, Persist: persist})
			if _, status, ok := runMux(t, m.path, MuxSessionRequest{Command: "true"}); status != 0 || !ok {
				t.Errorf("got %d %v", status, ok)
			}
			for deadline := time.Now().Add(20 * persist); look(m.path) == nil; <-time.After(persist / 10) {
				if time.Now().After(deadline) {
					t.Fatal("the master lives on")
				}
			}
			<-m.done
		})
	}
	t.Run("asks", func(t *testing.T) {
		const persist = 2 * time.Second
		m := startMaster(t, n, MasterConfig{PersistSet: true, Persist: persist})
		<-time.After(persist / 2)
		asked := time.Now()
		c := dialMaster(t, m.path)
		if _, err := c.Check(testContext(t)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		<-m.done
		if took := time.Since(asked); took < persist {
			t.Errorf("ended %v after a request, want %v", took, persist)
		}
	})
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
