package sshproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"ssm-ssh/internal/fdpass"
)

// rawMux is a control connection without a client's manners.
type rawMux struct {
	*muxConn
	t *testing.T
}

func dialRaw(t *testing.T, path string) *rawMux {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &rawMux{newMuxConn(c), t}
}

func (c *rawMux) put(m muxMessage) {
	c.t.Helper()
	if err := c.send(m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawMux) want(m muxMessage) {
	c.t.Helper()
	frame, err := c.receive()
	if err != nil {
		c.t.Fatalf("%v in place of %+v", err, m)
	}
	got, err := decodeReply(frame)
	if err != nil || !reflect.DeepEqual(got, m) {
		c.t.Fatalf("got %+v, %v, want %+v", got, err, m)
	}
}

// wantEnd waits for the master to hang up.
func (c *rawMux) wantEnd() {
	c.t.Helper()
	if frame, err := c.receive(); err == nil || !gone(err) {
		c.t.Fatalf("got %x, %v, want the end", frame, err)
	}
}

func TestMuxServerProtocol(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	alive := func(id uint32) *numberMessage {
		return &numberMessage{Kind: muxAlive, ID: id, Number: uint32(os.Getpid())}
	}
	tests := []struct {
		name string
		talk func(c *rawMux)
	}{
		{name: "hello comes at once", talk: func(c *rawMux) { c.want(&helloMessage{Version: muxVersion}) }},
		{name: "unknown extensions", talk: func(c *rawMux) {
			c.want(&helloMessage{Version: muxVersion})
			c.put(&helloMessage{Version: muxVersion, Extensions: []Extension{{"a@b", "1"}, {"", ""}}})
			c.put(&plainMessage{Kind: muxAliveCheck, ID: 9})
			c.want(alive(9))
		}},
		{name: "version 3", talk: func(c *rawMux) {
			c.want(&helloMessage{Version: muxVersion})
			c.put(&helloMessage{Version: 3})
			c.wantEnd()
		}},
		{name: "request before hello", talk: func(c *rawMux) {
			c.want(&helloMessage{Version: muxVersion})
			c.put(&plainMessage{Kind: muxAliveCheck})
			c.wantEnd()
		}},
		{name: "second hello", talk: func(c *rawMux) {
			c.want(&helloMessage{Version: muxVersion})
			c.put(&helloMessage{Version: muxVersion})
			c.put(&helloMessage{Version: muxVersion})
			c.wantEnd()
		}},
		{name: "garbage", talk: func(c *rawMux) {
			c.want(&helloMessage{Version: muxVersion})
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			c.wantEnd()
		}},
		{name: "bytes one at a time", talk: func(c *rawMux) {
			c.want(&helloMessage{Version: muxVersion})
			for _, b := range unhex(c.t, "00000008 00000001 00000004 00000008 10000004 00000005") {
				if _, err := c.Write([]byte{b}); err != nil {
					c.t.Fatal(err)
				}
			}
			c.want(alive(5))
		}},
		{name: "messages joined", talk: func(c *rawMux) {
			c.want(&helloMessage{Version: muxVersion})
			if _, err := c.Write(unhex(c.t, "00000008 00000001 00000004 00000008 10000004 00000000 00000008 10000004 00000001")); err != nil {
				c.t.Fatal(err)
			}
			c.want(alive(0))
			c.want(alive(1))
		}},
		{name: "unknown request", talk: func(c *rawMux) {
			c.put(&helloMessage{Version: muxVersion})
			c.want(&helloMessage{Version: muxVersion})
			c.put(&plainMessage{Kind: 0x10000042, ID: 3})
			c.want(&refusalMessage{Kind: muxFailure, ID: 3, Reason: "unsupported request"})
			c.put(&plainMessage{Kind: muxAliveCheck, ID: 4})
			c.want(alive(4))
		}},
		{name: "what ssh 10 asks with -O conninfo", talk: func(c *rawMux) {
			c.put(&helloMessage{Version: muxVersion})
			c.want(&helloMessage{Version: muxVersion})
			c.put(&infoRequestMessage{ID: 3, What: "connection"})
			c.want(&refusalMessage{Kind: muxFailure, ID: 3, Reason: "unsupported request"})
			c.put(&plainMessage{Kind: muxAliveCheck, ID: 4})
			c.want(alive(4))
		}},
		{name: "X11", talk: func(c *rawMux) {
			c.put(&helloMessage{Version: muxVersion})
			c.want(&helloMessage{Version: muxVersion})
			c.put(&newSessionMessage{ID: 0, X11: true, Escape: muxNoEscape, Command: "exit ${DISPLAY+1}7"})
			if err := fdpass.Send(c.UnixConn, null, null, null); err != nil {
				c.t.Fatal(err)
			}
			frame, err := c.receive()
			if err != nil {
				c.t.Fatal(err)
			}
			opened, _ := decodeReply(frame)
			id, err := expect(opened, muxSessionOpened)
			if err != nil {
				c.t.Fatal(err)
			}
			c.want(&numberMessage{Kind: muxExit, ID: id, Number: 7})
		}},
		{name: "byte without descriptor", talk: func(c *rawMux) {
			c.put(&helloMessage{Version: muxVersion})
			c.want(&helloMessage{Version: muxVersion})
			c.put(&newSessionMessage{ID: 1, Escape: muxNoEscape, Command: "true"})
			_, _ = c.Write([]byte{0, 0, 0})
			c.want(&refusalMessage{Kind: muxFailure, ID: 1, Reason: "did not receive file descriptors"})
			c.wantEnd()
		}},
		{name: "second session", talk: func(c *rawMux) {
			c.put(&helloMessage{Version: muxVersion})
			c.want(&helloMessage{Version: muxVersion})
			for id := range uint32(2) {
				c.put(&newSessionMessage{ID: id, Escape: muxNoEscape, Command: "read x; exit 4"})
				if err := fdpass.Send(c.UnixConn, null, null, null); err != nil {
					c.t.Fatal(err)
				}
			}
			var opened, refused int
			for opened+refused < 2 { // the answers cross
				frame, err := c.receive()
				if err != nil {
					c.t.Fatal(err)
				}
				switch m, _ := decodeReply(frame); m := m.(type) {
				case *numberMessage:
					opened++
				case *refusalMessage:
					refused++
					if m.ID != 1 || m.Reason != "Multiple sessions not supported" {
						c.t.Errorf("got %+v", m)
					}
				}
			}
		}},
		{name: "descriptors joined to the request by a relay", talk: func(c *rawMux) {
			c.put(&helloMessage{Version: muxVersion})
			c.want(&helloMessage{Version: muxVersion})
			b, err := encodeMux(&newSessionMessage{ID: 1, Escape: muxNoEscape, Command: "exit 6"})
			if err != nil {
				c.t.Fatal(err)
			}
			rights := unix.UnixRights(int(null.Fd()), int(null.Fd()), int(null.Fd()))
			if _, _, err := c.WriteMsgUnix(append(b, 0, 0, 0), rights, nil); err != nil {
				c.t.Fatal(err)
			}
			frame, err := c.receive()
			if err != nil {
				c.t.Fatal(err)
			}
			opened, _ := decodeReply(frame)
			id, err := expect(opened, muxSessionOpened)
			if err != nil {
				c.t.Fatal(err)
			}
			c.want(&numberMessage{Kind: muxExit, ID: id, Number: 6})
			c.wantEnd()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.talk(dialRaw(t, m.path)) })
	}
	if pid, err := dialMaster(t, m.path).Check(testContext(t)); pid != os.Getpid() || err != nil {
		t.Errorf("afterwards: %d, %v", pid, err)
	}
}

func TestAskedMaster(t *testing.T) {
	n := startNode(t, nodeOptions{})
	answers := &answers{}
	m := startMaster(t, n, MasterConfig{Host: "node", Ask: func(ctx context.Context, question string) bool {
		answer, _ := answers.Question(ctx, question)
		return answer == "yes"
	}})
	got := runCommand(t, stockSSH(t, m.path, "-O", "exit", "x"))
	if want := (result{stderr: "Master refused termination request: Permission denied\r\n", status: 255}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := tryMux(t, m.path, "true"); err == nil || err.Error() != "Master refused session request: Permission denied" {
		t.Errorf("session: %v", err)
	}
	want := []string{"Terminate shared connection to node? ", "Allow shared connection to node? "}
	if asked := answers.prompts(); !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %q", asked)
	}
}

// onTerminal starts a command with a terminal of its own and returns the terminal's other side.
func onTerminal(t *testing.T, cmd *exec.Cmd, columns, rows uint16) *os.File {
	t.Helper()
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Cols: columns, Rows: rows})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// transcript is what a terminal has shown.
type transcript struct {
	from io.Reader
	text string
}

// await reads until the text has been shown.
func (r *transcript) await(t *testing.T, text string) {
	t.Helper()
	buf := make([]byte, 256)
	for !strings.Contains(r.text, text) {
		n, err := r.from.Read(buf)
		r.text += string(buf[:n])
		if err != nil {
			t.Fatalf("%v after %q, want %q", err, r.text, text)
		}
	}
}

func TestStockClientTerminal(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	cmd := stockSSH(t, m.path, "-t", "x", `stty size; stty -a | grep -o 'intr = ..'; while read line; do stty size; done`)
	term := onTerminal(t, cmd, 77, 31)
	shown := &transcript{from: term}
	shown.await(t, "31 77")
	shown.await(t, "intr = ^C")
	if err := pty.Setsize(term, &pty.Winsize{Cols: 100, Rows: 40}); err != nil {
		t.Fatal(err)
	}
	// The client relays SIGWINCH to the master's process, which is this one; its handler calls:
	m.WindowChanged()
	if _, err := term.WriteString("line\r"); err != nil {
		t.Fatal(err)
	}
	shown.await(t, "40 100")
	if _, err := term.WriteString("\x04"); err != nil {
		t.Fatal(err)
	}
	shown.await(t, "Shared connection to x closed.")
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 0 {
		t.Errorf("ended with %d", got)
	}
}

func TestTerminalRefused(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"PermitTTY no"}})
	m := startMaster(t, n, MasterConfig{})
	got := runCommand(t, stockSSH(t, m.path, "-tt", "x", "echo on; exit 4"))
	if want := (result{stdout: "on\n", stderr: "PTY allocation request failed\r\nShared connection to x closed.\r\n", status: 4}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c := dialMaster(t, m.path)
	failed := false
	s, err := c.NewSession(testContext(t), MuxSessionRequest{TTY: true, Command: "exit 5", OnTTYFail: func() { failed = true }})
	if err != nil {
		t.Fatal(err)
	}
	if status, ok := s.Wait(); status != 5 || !ok || !failed {
		t.Errorf("got %d %v, told of the failure: %v", status, ok, failed)
	}
}

func TestPassengersDescriptors(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "in"), "from a file\n", 0o600)
	tests := []struct {
		name, script, want string
	}{
		{name: "files", script: `SSH 'cat; echo err >&2' <in >out 2>err; cat out err`, want: "from a file\nerr\n"},
		{name: "the same file for all", script: `SSH 'echo a; sleep 0.1; echo b >&2' <>both >&0 2>&0; cat both`, want: "a\nb\n"},
		{name: "null device", script: `SSH 'cat; echo $?' </dev/null`, want: "0\n"},
		{name: "endless input", script: `SSH 'echo done' </dev/zero`, want: "done\n"},
		{name: "no input", script: `SSH -n cat; echo $?`, want: "0\n"},
		{name: "closed input", script: `SSH 'cat; echo end' <&-`, want: "end\n"},
		{name: "reader gone", script: `SSH yes | head -1`, want: "y\n"},
		{name: "rest of the input stays", script: `(SSH 'echo one' </dev/null; cat) <in`, want: "one\nfrom a file\n"},
		{name: "substitution returns at once", script: `echo "$(SSH 'echo sub')"`, want: "sub\n"},
		{name: "fifo", script: `mkfifo f; (sleep 0.1; echo late) >f & SSH cat <f; wait`, want: "late\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := stockSSH(t, m.path)
			script := `SSH() { case $1 in -n) shift; set -- -n x "$@";; *) set -- x "$@";; esac; "$0" -F none -oProxyCommand=false -S "$CTL" "$@"; }` + "\n" + tt.script
			cmd := exec.CommandContext(testContext(t), "/bin/sh", "-c", script, base.Path)
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "CTL="+m.path)
			if got := runCommand(t, cmd); got.stdout != tt.want {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
}

func TestPassengerOnASocketPair(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	c := dialMaster(t, m.path)
	s, err := c.NewSession(testContext(t), MuxSessionRequest{Command: "cat; exit 8", Stdin: theirs, Stdout: theirs})
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("socket "), 1<<15)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := ours.Write(data)
		if err := errors.Join(err, syscall.Shutdown(fds[0], syscall.SHUT_WR)); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(ours)
	wg.Wait()
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
	}
	if status, ok := s.Wait(); status != 8 || !ok {
		t.Errorf("got %d %v", status, ok)
	}
}

func TestKilledClientsLeaveNothing(t *testing.T) {
	n := startNode(t, nodeOptions{})
	m := startMaster(t, n, MasterConfig{})
	if err := tryMux(t, m.path, "true"); err != nil {
		t.Fatal(err)
	}
	await(t, "the client's end", func() bool { return m.clientCount() == 0 })
	files := openFiles(t)
	for i := range 30 {
		cmd := stockSSH(t, m.path, "x", fmt.Sprintf("cat; exit %d", i))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // half of them in the middle of their work
			await(t, "the client", func() bool { return m.clientCount() > 0 })
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		in.Close()
	}
	await(t, "the clients' end", func() bool { return m.clientCount() == 0 })
	await(t, "descriptors to be closed", func() bool { return openFiles(t) <= files })
	if err := tryMux(t, m.path, "true"); err != nil {
		t.Error(err)
	}
}

func (m *testMaster) clientCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.clients)
}
