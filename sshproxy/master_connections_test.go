package sshproxy

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// countingPrompter gives one answer to all questions for a secret.
type countingPrompter struct {
	answer string
	asked  atomic.Int32
}

func (p *countingPrompter) Secret(context.Context, string) (string, error) {
	p.asked.Add(1)
	return p.answer, nil
}

func (p *countingPrompter) Question(context.Context, string) (string, error) {
	p.asked.Add(1)
	return "yes", nil
}

func (p *countingPrompter) Confirm(context.Context, string) (bool, error) {
	p.asked.Add(1)
	return true, nil
}

// TestMasterRidesOnMoreConnections has clients of a real sshd that allows two sessions a connection: they
// are served at the same time where one more connection can be had without a question, else in turn.
func TestMasterRidesOnMoreConnections(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, n *node, cfg *Config)
		more   bool
		tries  int32 // at another connection; 0: any number
	}{
		{name: "key", change: func(*testing.T, *node, *Config) {}, more: true},
		{name: "key of an agent", more: true, change: func(t *testing.T, n *node, cfg *Config) {
			cfg.AgentSocket, cfg.IdentityFile = startAgent(t, n.key), nil
		}},
		{name: "key with a passphrase", tries: 1, change: func(t *testing.T, n *node, cfg *Config) {
			file, public := writeKey(t, n.dir, "locked", "ed25519", "secret")
			n.authorize(t, public)
			cfg.IdentityFile = []Identity{{Path: file, Explicit: true}}
		}},
		{name: "another server", tries: 1, change: func(t *testing.T, _ *node, cfg *Config) {
			other := startNode(t, nodeOptions{})
			cfg.Another = func(context.Context) (net.Conn, error) { return other.dial(t), nil }
		}},
		{name: "no way", change: func(_ *testing.T, _ *node, cfg *Config) {
			cfg.Another = func(context.Context) (net.Conn, error) { return nil, os.ErrDeadlineExceeded }
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := startNode(t, nodeOptions{lines: []string{"MaxSessions 2"}})
			log, prompter := new(logBook), &countingPrompter{answer: "secret"}
			cfg := n.clientConfig(log)
			cfg.Prompt = prompter
			cfg.Another = func(context.Context) (net.Conn, error) { return n.dial(t), nil }
			tt.change(t, n, &cfg)
			var tries atomic.Int32
			another := cfg.Another
			cfg.Another = func(ctx context.Context) (net.Conn, error) {
				tries.Add(1)
				return another(ctx)
			}
			m := startMasterOver(t, n.dial(t), cfg, MasterConfig{})
			questions, said := prompter.asked.Load(), log.text()

			dir := t.TempDir()
			const clients = 5
			var all sync.WaitGroup
			for i := range clients {
				all.Go(func() {
					run := fmt.Sprintf("touch %[1]s/%[2]d; until [ -e %[1]s/go ]; do sleep 0.05; done", dir, i)
					if _, status, ok := runMux(t, m.path, MuxSessionRequest{Command: run}); !ok || status != 0 {
						t.Errorf("client %d: status %d, %v", i, status, ok)
					}
				})
			}
			await(t, "the clients", func() bool {
				begun, _ := os.ReadDir(dir)
				return len(begun) == clients || !tt.more && tries.Load() > 0
			})
			writeFile(t, filepath.Join(dir, "go"), "", 0o600)
			all.Wait()
			if got := prompter.asked.Load(); got != questions {
				t.Errorf("%d questions for another connection", got-questions)
			}
			if got := tries.Load(); got < 1 || tt.tries > 0 && got != tt.tries {
				t.Errorf("%d tries at another connection", got)
			}
			if got := log.text(); got != said {
				t.Errorf("the user reads %q, before it was %q", got, said)
			}
		})
	}
}

// TestMasterWithoutItsFirstConnection: what rides on another goes on, and then the master ends with the
// first one's error.
func TestMasterWithoutItsFirstConnection(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"MaxSessions 1"}})
	cfg := n.clientConfig(new(logBook))
	cfg.Another = func(context.Context) (net.Conn, error) { return n.dial(t), nil }
	first := n.dial(t)
	m := startMasterOver(t, first, cfg, MasterConfig{})
	dir := t.TempDir()
	type end struct {
		status int
		ok     bool
	}
	start := func(name string) <-chan end {
		ended := make(chan end, 1)
		go func() {
			run := fmt.Sprintf("touch %[1]s/%[2]s; until [ -e %[1]s/go ]; do sleep 0.05; done; exit 7", dir, name)
			_, status, ok := runMux(t, m.path, MuxSessionRequest{Command: run})
			ended <- end{status, ok}
		}()
		awaitFile(t, filepath.Join(dir, name))
		return ended
	}
	one, two := start("one"), start("two")
	holder := dialMaster(t, m.path)
	if _, err := holder.Check(testContext(t)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if got := <-one; got.ok {
		t.Errorf("the first connection's client: %+v", got)
	}
	if err := holder.Hold(testContext(t)); err == nil {
		t.Error("a client without a session is still held")
	}
	select {
	case <-m.done:
		t.Fatal("the master has ended too early")
	case <-time.After(100 * time.Millisecond):
	}
	writeFile(t, filepath.Join(dir, "go"), "", 0o600)
	if got := <-two; !got.ok || got.status != 7 {
		t.Errorf("the other connection's client: %+v", got)
	}
	<-m.done
	if m.err == nil {
		t.Error("the master ended without an error")
	}
}
