package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"ssm-ssh/test/lab"
)

const (
	// terminalLimit bounds each wait for the plugin, and its life after the last.
	terminalLimit = 30 * time.Second
	// killLimit bounds the end of the plugin once it was killed.
	killLimit = 10 * time.Second
)

// terminal is the plugin on a pty, and what it has written so far.
type terminal struct {
	t      *testing.T
	master *os.File // doesn't block, so that deadlines and Close end what waits for it

	mu     sync.Mutex
	seen   strings.Builder
	grown  chan struct{}
	ended  chan struct{}
	status error
}

// onTerminal starts the plugin on a pty for a session with a document. The pty has no size, which keeps
// the plugin from sending one: see TestPluginShell.
func (s *stock) onTerminal(t *testing.T, document string, params map[string][]string) *terminal {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*terminalLimit)
	t.Cleanup(cancel)
	in := &ssm.StartSessionInput{Target: &s.lab.Targets()[0], Parameters: params}
	request := map[string]any{"Target": s.lab.Targets()[0]}
	if document != "" {
		in.DocumentName, request["DocumentName"] = &document, document
	}
	out, err := newRaw(t, s.lab).api.StartSession(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := json.Marshal(map[string]*string{"SessionId": out.SessionId, "StreamUrl": out.StreamUrl, "TokenValue": out.TokenValue})
	text, _ := json.Marshal(request)
	cmd := exec.CommandContext(ctx, s.plugin, string(answer), lab.Region, "StartSession", "", string(text), s.endpoint())
	cmd.Env = s.env
	blocking, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, master: nonblocking(t, blocking), grown: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		defer close(term.ended)
		io.Copy(term, term.master)
		term.status = cmd.Wait()
	}()
	t.Cleanup(func() {
		cancel() // kills the plugin, if it has not ended
		select {
		case <-term.ended:
		case <-time.After(killLimit):
			t.Error("the plugin's terminal is still in use")
		}
		term.master.Close()
		<-term.ended
	})
	return term
}

// nonblocking takes a file over as one with deadlines.
func nonblocking(t *testing.T, f *os.File) *os.File {
	t.Helper()
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
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
	limit := time.NewTimer(terminalLimit)
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
	m.master.SetWriteDeadline(time.Now().Add(terminalLimit))
	if _, err := io.WriteString(m.master, line+"\n"); err != nil {
		m.t.Fatal(err)
	}
}

// resize gives the terminal a size, which the plugin looks at every half second.
func (m *terminal) resize(rows, columns uint16) {
	m.t.Helper()
	raw, err := m.master.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	failed := raw.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	})
	if err := errors.Join(failed, err); err != nil {
		m.t.Fatal(err)
	}
}

// TestPluginShell has the official client at a shell of the lab: input, output, window size, end; and
// the same with encryption, by agents that send a challenge for the data key and by those that don't.
//
// The plugin numbers what is typed and the terminal's size in two goroutines without a lock
// (streaming.go, SendInputDataMessage). When both come at once they get the same number: the agent drops
// the later of them as a repetition, waits for the number that was left out, and is deaf from then on. So
// nothing is typed here while a size may be on its way.
func TestPluginShell(t *testing.T) {
	tests := []struct {
		name      string
		opts      lab.Options
		encrypted bool
		smoke     bool // run by make test, too
	}{
		{"plain", lab.Options{}, false, true},
		{"encrypted", lab.Options{Encrypt: true}, true, true},
		{"encrypted, old agent", lab.Options{Encrypt: true, AgentVersion: "3.2.815.0"}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && !tt.smoke {
				t.Skip("one of each family is enough: run by make test-full")
			}
			t.Parallel()
			tt.opts.InProcessSSHD = true
			s := startStock(t, tt.opts)
			term := s.onTerminal(t, "", nil)
			term.await(`\$ `)
			term.typed(`echo sum-$((40+2)); until [ "$(stty size)" = "31 97" ]; do sleep 0.1; done; echo size-$((40+3))`)
			term.await(`sum-42`)
			term.resize(31, 97)
			term.await(`size-43`)
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
	t.Parallel()
	s := startStock(t, lab.Options{InProcessSSHD: true, Encrypt: true, RequireChallenge: true})
	term := s.onTerminal(t, "", nil)
	term.await("does not support the KMS challenge")
}
