package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// both runs a call by TCP with stock ssh and with ours. The options come before the destination; PATH in them
// is a control path that is new for each, and on which a master must be if the call was well.
func (r *rig) both(options []string, command ...string) (stock, ours result) {
	r.Helper()
	call := func(program string) result {
		path := r.path(fmt.Sprint("alike", freshPaths.Add(1)))
		cmd := r.direct(program, command...)
		for _, o := range slices.Backward(options) {
			cmd.Args = slices.Insert(cmd.Args, 1, strings.ReplaceAll(o, "PATH", path))
		}
		got := r.run(cmd)
		if want := slices.Contains(options, "PATH") && got.status == 0; exists(path) != want {
			r.Errorf("%s leaves a control socket: %v", program, !want)
		}
		return got
	}
	return call("ssh"), call(binary)
}

// TestRefusedForwards holds a refused forward against stock ssh: what is said, what becomes of the call, and
// whether a master is left.
func TestRefusedForwards(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	r.open()
	r.run(r.direct("ssh", "true")) // for the node's key
	busy := r.busyPort()
	sshd := "127.0.0.1:" + r.lab.Node(0).SSHPort()
	local, remote := fmt.Sprintf("127.0.0.1:%d:%s", busy, sshd), fmt.Sprintf("%d:%s", busy, sshd)
	const strict = "ExitOnForwardFailure=yes"
	for _, tt := range []struct {
		name    string
		options []string
		status  int
	}{
		{"local", []string{"-L", local}, 0},
		{"local, strict", []string{"-o", strict, "-L", local}, 255},
		{"dynamic, strict", []string{"-o", strict, "-D", fmt.Sprintf("127.0.0.1:%d", busy)}, 255},
		{"remote", []string{"-R", remote}, 0},
		{"remote, strict", []string{"-o", strict, "-R", remote}, 255},
		{"both", []string{"-R", remote, "-L", local}, 0},
		{"cleared", []string{"-o", strict, "-o", "ClearAllForwardings=yes", "-R", remote, "-L", local}, 0},
		{"local socket in no folder", []string{"-o", strict, "-L", r.path("none/x") + ":" + sshd}, 255},
	} {
		for _, master := range [][]string{nil, {"-M", "-S", "PATH", "-o", "ControlPersist=60"}} {
			if testing.Short() && master == nil {
				continue
			}
			t.Run(fmt.Sprintf("%s, master %v", tt.name, master != nil), func(t *testing.T) {
				t.Parallel()
				stock, ours := r.within(t).both(append(slices.Clone(tt.options), master...), "echo done")
				if master != nil { // which stock ssh's has lost its stderr by then
					ours.stderr = strings.Replace(ours.stderr, fmt.Sprintf("Warning: remote port forwarding failed for listen port %d\r\n", busy), "", 1)
				}
				if stock.status != tt.status || ours != stock {
					t.Errorf("want status %d\nssh  %+v\nours %+v", tt.status, stock, ours)
				}
			})
		}
	}
}

// busyPort is one of the loopback's that is taken on both of its addresses.
func (r *rig) busyPort() int {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { l.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	if other, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", port)); err == nil {
		r.Cleanup(func() { other.Close() })
	}
	return port
}

// TestPermitRemoteOpen asks a remote forward that speaks SOCKS for what it may and may not reach.
func TestPermitRemoteOpen(t *testing.T) {
	r := newRig(t, lab.Options{})
	node := r.target()
	sshd := r.lab.Node(0).SSHPort()
	for _, tt := range []struct {
		permit string
		opens  bool
	}{
		{"any", true}, {"127.0.0.1:" + sshd, true}, {"*:" + sshd, true}, {"127.0.0.1:*", true},
		{"none", false}, {"127.0.0.1:1", false}, {"localhost:" + sshd, false},
	} {
		t.Run(tt.permit, func(t *testing.T) {
			r := r.within(t)
			path := r.path(fmt.Sprint("cp", freshPaths.Add(1)))
			port := freePort(t)
			args := []string{"-S", path, "-o", "PermitRemoteOpen=" + tt.permit, "-R", fmt.Sprint(port), node, "true"}
			r.want(r.ssh(args...), 0, "", "")
			p := &pairing{rig: r}
			if tt.opens {
				p.hearsBySOCKS(p.loopback(port), sshd)
			} else if answer := p.asksSOCKS(p.loopback(port), sshd); strings.Contains(answer, "SSH-") {
				t.Errorf("it opened: %q", answer)
			}
			r.want(r.ssh("-S", path, "-O", "exit", node), 0, "", "Exit request sent.\r\n")
		})
	}
}

// asksSOCKS returns all that a SOCKS 5 server says to a wish for a port of the loopback.
func (p *pairing) asksSOCKS(server, port string) string {
	p.Helper()
	c, err := net.Dial("tcp", server)
	if err != nil {
		p.Fatal(err)
	}
	defer c.Close()
	var number uint16
	fmt.Sscan(port, &number)
	c.Write([]byte{5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, byte(number >> 8), byte(number)})
	all, err := io.ReadAll(io.LimitReader(c, 64))
	if err != nil {
		p.Logf("after %x: %v", all, err)
	}
	return string(all)
}

// TestManyConnectionsThroughOneForward opens them at once, sends through each, and counts the master's
// descriptors before and after.
func TestManyConnectionsThroughOneForward(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	r := newRig(t, lab.Options{})
	echo := r.echoServer()
	path := r.path("cp")
	port := freePort(t)
	r.want(r.ssh("-S", path, "-L", fmt.Sprintf("%d:%s", port, echo), r.target(), "true"), 0, "", "")
	pid := r.masterPID(path)
	before := testenv.DescriptorsOf(t, pid)
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		conns[i] = c
		fmt.Fprintf(c, "this is number %d\n", i)
	}
	for i, c := range conns {
		want := fmt.Sprintf("this is number %d\n", i)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Fatalf("connection %d: %q, %v", i, got, err)
		}
		c.Close()
	}
	r.await("the end of all connections", func() bool { return testenv.DescriptorsOf(t, pid) <= before })
	r.wantSessions(1)
}

// echoServer returns the address of one.
func (r *rig) echoServer() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

// TestForwardOutlivesItsWebsocket loses the session's connection while something goes through a forward.
func TestForwardOutlivesItsWebsocket(t *testing.T) {
	r := newRig(t, lab.Options{})
	echo := r.echoServer()
	port := freePort(t)
	client := r.prepare(exec.Command(binary, "-S", "none", "-N", "-L", fmt.Sprintf("%d:%s", port, echo), r.target()))
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	defer client.Wait()
	defer client.Process.Signal(os.Interrupt)
	var c net.Conn
	r.await("the forward", func() (ok bool) {
		var err error
		c, err = net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		return err == nil
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * awaitLimit))
	say := func(line string) {
		t.Helper()
		fmt.Fprintln(c, line)
		got := make([]byte, len(line)+1)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != line+"\n" {
			t.Fatalf("got %q, %v; want %q", got, err, line)
		}
	}
	say("before")
	r.lab.Faults().CutClients()
	say("after")
	if resumed := r.lab.Counts().ResumeSession; resumed == 0 {
		t.Error("no session was resumed")
	}
	r.wantSessions(1)
}
