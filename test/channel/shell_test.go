package channel

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"ssm-ssh/ssmchannel"
	"ssm-ssh/test/lab"
)

// end types exit into a shell and reads to its end.
func end(t *testing.T, conn *ssmchannel.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "exit\n"); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// TestShell: a session without handshake, with a terminal of the size that we say.
func TestShell(t *testing.T) {
	r := newSmokeRig(t, lab.Options{})
	conn := r.open("", nil)
	if conn.SessionType() != "" || conn.AgentVersion() != "" {
		t.Errorf("type %q, agent %q", conn.SessionType(), conn.AgentVersion())
	}
	for _, size := range [][2]int{{97, 31}, {120, 40}, {1, 1}} {
		if err := conn.Resize(size[0], size[1]); err != nil {
			t.Fatal(err)
		}
		shellRound(t, conn, "echo size-$(stty size)", fmt.Sprintf("size-%d %d", size[1], size[0]))
	}
	conn.Resize(80, 24)
	conn.Resize(0, 0) // a terminal that does not know its size changes nothing
	shellRound(t, conn, "echo size-$(stty size)", "size-24 80")
	shellRound(t, conn, "echo ä'ö'ü-€-😀", "äöü-€-😀")
	end(t, conn)
	if !conn.Terminated() {
		t.Error("the session is not over")
	}
	r.awaitNoSession()
}

// TestShellOutput: much output arrives whole, with cuts of the websocket on the way. The shell lives
// until it has: at a shell's end the agent repeats what is lost for two seconds only.
func TestShellOutput(t *testing.T) {
	r := newRig(t, lab.Options{})
	conn := r.open("", nil)
	if _, err := io.WriteString(conn, "stty -echo -opost; i=0; while [ $i -lt 20000 ]; do echo line-$i-äöü; i=$((i+1)); done\n"); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(limit))
	var seen strings.Builder
	buf := make([]byte, 4096)
	for cut := 100_000; !strings.Contains(seen.String(), "line-19999-äöü"); {
		n, err := conn.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("after %d bytes: %v", seen.Len(), err)
		}
		if seen.Len() > cut {
			cut += 100_000
			r.lab.Faults().CutClients()
		}
	}
	lines := strings.Split(seen.String(), "\n")
	next := 0
	for _, line := range lines {
		if strings.HasSuffix(line, fmt.Sprintf("line-%d-äöü", next)) {
			next++
		}
	}
	if next != 20000 {
		t.Errorf("%d lines in order", next)
	}
	end(t, conn)
	r.awaitNoSession()
}

// TestInterruptedShell: control characters are input, and reach what runs.
func TestInterruptedShell(t *testing.T) {
	r := newRig(t, lab.Options{})
	conn := r.open("", nil)
	shellRound(t, conn, "echo run$(echo ning); sleep 1000", "running")
	io.WriteString(conn, "\x03")
	awaitOutput(t, conn, "^C")
	shellRound(t, conn, "echo sum-$((1+1))", "sum-2")
	end(t, conn)
}

// TestClosedShell: Close does not wait for an agent that knows no such flag, and the
// API ends what runs.
func TestClosedShell(t *testing.T) {
	r := newRig(t, lab.Options{})
	conn := r.open("", nil)
	shellRound(t, conn, "echo sum-$((40+2)); sleep 1000 & wait", "sum-42")
	began := time.Now()
	conn.Close()
	if d := time.Since(began); d > time.Second {
		t.Errorf("close took %v", d)
	}
	if conn.Terminated() {
		t.Error("terminated without the API")
	}
	if err := r.api.TerminateSession(r.ctx, conn.SessionID()); err != nil {
		t.Error(err)
	}
	r.awaitNoSession()
}

func TestCommands(t *testing.T) {
	const script = "echo to-out; echo to-err >&2; exit 3"
	tests := []struct {
		document, out, err string
		code               int
		known, encrypt     bool
	}{
		{"AWS-StartInteractiveCommand", "to-out\r\nto-err\r\n", "", 0, false, false},
		{"AWS-StartNonInteractiveCommand", "to-out\nto-err\n", "", 0, false, false},
		{"Lab-StartSeparateOutputCommand", "to-out\n", "to-err\n", 3, true, false},
		{"Lab-StartSeparateOutputCommand", "to-out\n", "to-err\n", 3, true, true},
		{"AWS-StartInteractiveCommand", "to-out\r\nto-err\r\n", "", 0, false, true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s encrypted %v", tt.document, tt.encrypt), func(t *testing.T) {
			r := newRig(t, lab.Options{Encrypt: tt.encrypt})
			conn := r.open(tt.document, map[string]string{"command": script})
			conn.SetReadDeadline(time.Now().Add(limit))
			out, err := io.ReadAll(conn)
			if err != nil || string(out) != tt.out {
				t.Errorf("output %q, %v", out, err)
			}
			errs, err := io.ReadAll(conn.Stderr())
			if err != nil || string(errs) != tt.err {
				t.Errorf("errors %q, %v", errs, err)
			}
			if code, known := conn.ExitCode(); code != tt.code || known != tt.known {
				t.Errorf("exit code %d, %v", code, known)
			}
			r.awaitNoSession()
		})
	}
}

// TestCommandIsSignalled: without a terminal a control character still is a signal.
func TestCommandIsSignalled(t *testing.T) {
	r := newRig(t, lab.Options{})
	conn := r.open("Lab-StartSeparateOutputCommand", map[string]string{"command": "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"})
	awaitOutput(t, conn, "ready")
	io.WriteString(conn, "ignored \x03")
	awaitOutput(t, conn, "caught")
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Error(err)
	}
	if code, known := conn.ExitCode(); code != 9 || !known {
		t.Errorf("exit code %d, %v", code, known)
	}
}

// TestUnreadStderr: what is not read on one stream stops the session at a bound, and
// nothing is lost.
func TestUnreadStderr(t *testing.T) {
	r := newRig(t, lab.Options{})
	cfg := r.config()
	cfg.IncomingBytes = 64 << 10
	conn, err := r.dial("Lab-StartSeparateOutputCommand", map[string]string{"command": "head -c 300000 /dev/zero >&2; echo done"}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(limit))
	n, err := io.Copy(io.Discard, conn.Stderr())
	if err != nil || n != 300000 {
		t.Errorf("%d bytes of errors, %v", n, err)
	}
	if out, err := io.ReadAll(conn); err != nil || string(out) != "done\n" {
		t.Errorf("output %q, %v", out, err)
	}
}
