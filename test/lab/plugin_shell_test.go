package lab_test

import (
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/creack/pty"

	"ssm-ssh/test/lab"
)

// terminal is a program on a pty, and what it has written so far.
type terminal struct {
	t     *testing.T
	input io.Writer

	mu     sync.Mutex
	seen   strings.Builder
	grown  chan struct{}
	ended  chan struct{}
	status error
}

// onTerminal starts the plugin on a pty for a session with a document.
func (s *stock) onTerminal(t *testing.T, document string, params map[string][]string) *terminal {
	t.Helper()
	in := &ssm.StartSessionInput{Target: &s.lab.Targets()[0], Parameters: params}
	request := map[string]any{"Target": s.lab.Targets()[0]}
	if document != "" {
		in.DocumentName, request["DocumentName"] = &document, document
	}
	out, err := newRaw(t, s.lab).api.StartSession(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := json.Marshal(map[string]*string{"SessionId": out.SessionId, "StreamUrl": out.StreamUrl, "TokenValue": out.TokenValue})
	text, _ := json.Marshal(request)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	cmd := exec.CommandContext(ctx, s.plugin, string(answer), lab.Region, "StartSession", "", string(text), s.endpoint())
	cmd.Env = s.env
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 31, Cols: 97})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, input: master, grown: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		defer close(term.ended)
		io.Copy(term, master)
		term.status = cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel() // kills the plugin, if it has not ended
		select {
		case <-term.ended:
		case <-time.After(10 * time.Second):
			t.Error("the plugin's terminal is still in use")
		}
		master.Close()
		<-term.ended
	})
	return term
}

func (m *terminal) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen.Write(p)
	select {
	case m.grown <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (m *terminal) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen.String()
}

// await waits until what was written matches.
func (m *terminal) await(pattern string) {
	m.t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	for !regexp.MustCompile(pattern).MatchString(m.text()) {
		select {
		case <-m.grown:
		case <-m.ended:
			if regexp.MustCompile(pattern).MatchString(m.text()) {
				return
			}
			m.t.Fatalf("ended before %q: %q, %v", pattern, m.text(), m.status)
		case <-limit.C:
			m.t.Fatalf("no %q: %q", pattern, m.text())
		}
	}
}

func (m *terminal) typed(line string) {
	m.t.Helper()
	if _, err := io.WriteString(m.input, line+"\n"); err != nil {
		m.t.Fatal(err)
	}
}

// TestPluginShell has the official client at a shell of the lab: input, output, window size, end; and
// the same with encryption, by agents that send a challenge for the data key and by those that don't.
func TestPluginShell(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long: run by make test-full")
	}
	tests := []struct {
		name      string
		opts      lab.Options
		encrypted bool
	}{
		{"plain", lab.Options{}, false},
		{"encrypted", lab.Options{Encrypt: true}, true},
		{"encrypted, old agent", lab.Options{Encrypt: true, AgentVersion: "3.2.815.0"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.opts.InProcessSSHD = true
			s := startStock(t, tt.opts)
			term := s.onTerminal(t, "", nil)
			term.await(`\$ `)
			term.typed("stty size; echo sum-$((40+2))")
			term.await(`31 97\s+sum-42`)
			term.typed("exit")
			term.await("Exiting session")
			waitFor(t, func() bool { return s.lab.Counts().LiveSessions == 0 })
			if n := s.lab.Counts().DataKeys; (n == 1) != tt.encrypted {
				t.Errorf("%d data keys", n)
			}
		})
	}
}

func TestPluginCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long: run by make test-full")
	}
	for document, want := range map[string]string{
		"AWS-StartInteractiveCommand":    `out-42`,
		"AWS-StartNonInteractiveCommand": `out-42`,
		"Lab-StartSeparateOutputCommand": `out-42`,
	} {
		for _, encrypt := range []bool{false, true} {
			t.Run(document+map[bool]string{true: "/encrypted"}[encrypt], func(t *testing.T) {
				t.Parallel()
				s := startStock(t, lab.Options{InProcessSSHD: true, Encrypt: encrypt})
				term := s.onTerminal(t, document, map[string][]string{"command": {"echo out-$((40+2))"}})
				term.await(want)
				term.await("Exiting session")
				waitFor(t, func() bool { return s.lab.Counts().LiveSessions == 0 })
			})
		}
	}
}

// TestPluginWithoutChallenge: an agent that insists on the challenge refuses the official plugin
// 1.3.0.0, which does not know it.
func TestPluginWithoutChallenge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long: run by make test-full")
	}
	s := startStock(t, lab.Options{InProcessSSHD: true, Encrypt: true, RequireChallenge: true})
	term := s.onTerminal(t, "", nil)
	term.await("does not support the KMS challenge")
}
