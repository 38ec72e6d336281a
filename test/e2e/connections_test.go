package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// forwardingDocument is the one whose sessions take many connections.
const forwardingDocument = "AWS-StartPortForwardingSession"

// firstUse is how many descriptors a master may open for good once it has more to do than a command.
const firstUse = 2

// forwarding begins a command line that starts its session by that document.
func (r *rig) forwarding(path string, args ...string) *exec.Cmd {
	return r.by(forwardingDocument, path, args...)
}

// by begins a command line that starts its session by a document.
func (r *rig) by(document, path string, args ...string) *exec.Cmd {
	return exec.Command(binary, append([]string{"-o", "SSMDocument=" + document, "-S", path, r.target()}, args...)...)
}

// sshdConnections counts the TCP connections to the first node's sshd.
func (r *rig) sshdConnections() (n int) {
	port, _ := strconv.Atoi(r.lab.Node(0).SSHPort())
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		r.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // number, local address, remote address, state: 01 is established
		if len(f) > 3 && f[3] == "01" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			n++
		}
	}
	return n
}

// gathering is a set of commands that are all to run at the same time: each says that it has begun, and
// waits for a word that is not given before all have.
type gathering struct {
	*rig
	dir      string
	commands []*gathered
}

// gathered is one of its commands.
type gathered struct {
	ended chan struct{}
	result
}

func (r *rig) gather(n int, command func(i int, run string) *exec.Cmd) *gathering {
	r.Helper()
	r.open()
	g := &gathering{rig: r, dir: r.path("gathering")}
	if err := os.Mkdir(g.dir, 0o777); err != nil {
		r.Fatal(err)
	}
	if err := os.Chmod(g.dir, 0o777); err != nil { // whatever the umask
		r.Fatal(err)
	}
	for i := range n {
		// The file of a command names the process that holds its connection at the node.
		run := fmt.Sprintf("echo $PPID > %[1]s/t%[2]d; mv %[1]s/t%[2]d %[1]s/%[2]d; n=0; "+
			"until [ -e %[1]s/go ] || [ $n -gt 600 ]; do n=$((n+1)); sleep 0.1; done; exit %[3]d", g.dir, i, 1+i%200)
		c := &gathered{ended: make(chan struct{})}
		g.commands = append(g.commands, c)
		go func() {
			defer close(c.ended)
			c.result = r.run(command(i, run))
		}()
	}
	return g
}

// await waits until all have begun, and returns them by their connections.
func (g *gathering) await() map[int][]int {
	g.Helper()
	connections := make(map[int][]int)
	for i := range g.commands {
		name := filepath.Join(g.dir, strconv.Itoa(i))
		g.rig.await("command "+strconv.Itoa(i), func() bool { return exists(name) })
		text, err := os.ReadFile(name)
		if err != nil {
			g.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			g.Fatal(err)
		}
		connections[pid] = append(connections[pid], i)
	}
	return connections
}

// part gives the word and checks that the commands end well; those that are lost have ended already.
func (g *gathering) part(lost []int) {
	g.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, "go"), nil, 0o644); err != nil {
		g.Fatal(err)
	}
	for i, c := range g.commands {
		<-c.ended
		if slices.Contains(lost, i) {
			continue
		}
		g.want(c.result, 1+i%200, "", "")
	}
}

// TestManyMoreThanMaxSessionsAtTheSameTime has 40 commands wait for each other: none would end if any had
// to wait for its turn.
func TestManyMoreThanMaxSessionsAtTheSameTime(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	path := r.path("cp")
	r.want(r.run(r.forwarding(path, "true")), 0, "", "")
	pid := r.masterPID(path)
	before := footprintOf(pid)
	before.descriptors += firstUse
	g := r.gather(40, func(i int, run string) *exec.Cmd {
		if i%4 == 0 {
			return stock(path, "x", run)
		}
		return r.forwarding(path, run)
	})
	if n := len(g.await()); n != 4 {
		t.Errorf("%d connections, want 4", n)
	}
	r.lab.Faults().CutClients() // of all of them at once
	r.want(r.run(stock(path, "x", "echo one more")), 0, "one more\n", "")
	soakForward(r, path, 0)
	soakForward(r, path, 1)
	if got := r.run(r.forwarding(path, "-O", "check")); got.status != 0 || !strings.HasPrefix(got.stderr, "Master running") {
		t.Errorf("check: %+v", got)
	}
	g.part(nil)
	after := r.settledFootprint(pid, before)
	if after.descriptors > before.descriptors {
		t.Errorf("the master has grown from %+v to %+v", before, after)
	}
	r.wantSessions(1)
	if !testing.Short() { // they are kept for a while
		r.await("giving the connections back", func() bool { return r.sshdConnections() == 1 })
	}
	r.want(r.run(r.forwarding(path, "-O", "exit")), 0, "", "Exit request sent.\r\n")
	if c := r.settled(); c.LiveSessions != 0 {
		t.Errorf("%d sessions left", c.LiveSessions)
	}
	if n := r.sshdConnections(); n != 0 {
		t.Errorf("%d connections left at the node", n)
	}
}

// TestSoakOnManyConnections is TestMuxSoak with more clients at once than one connection takes.
func TestSoakOnManyConnections(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long: run by make test-full")
	}
	testenv.Need(t, "ssh", "sftp")
	const warm, total, workers = 400, 4000, 24
	r := newRig(t, lab.Options{})
	r.open()
	path := r.path("cp")
	r.want(r.run(r.forwarding(path, "true")), 0, "", "")
	pid := r.masterPID(path)
	r.soak(path, 0, warm, workers)
	before := r.settledFootprint(pid, footprint{})
	r.soak(path, warm, total, workers)
	if n := r.sshdConnections(); n < 2 {
		t.Errorf("%d connections: too few clients at once", n)
	}
	after := r.settledFootprint(pid, before)
	t.Logf("master before %+v, after %+v", before, after)
	if after.descriptors > before.descriptors || after.threads > before.threads+6 || after.residentKB > before.residentKB*3/2 {
		t.Errorf("the master has grown from %+v to %+v", before, after)
	}
	r.wantSessions(1)
}

// TestLostConnectionAmongMany: when one connection is lost its clients are told so, and the others' go on.
func TestLostConnectionAmongMany(t *testing.T) {
	for _, first := range []bool{false, true} {
		t.Run(map[bool]string{false: "another", true: "the first"}[first], func(t *testing.T) {
			r := newRig(t, lab.Options{})
			path := r.path("cp")
			got := r.run(r.forwarding(path, "echo $PPID"))
			own, err := strconv.Atoi(strings.TrimSpace(got.stdout))
			if err != nil {
				t.Fatalf("%+v", got)
			}
			g := r.gather(25, func(_ int, run string) *exec.Cmd { return r.forwarding(path, run) })
			victim, connections := own, g.await()
			for pid := range connections {
				if !first && pid != own {
					victim = pid
				}
			}
			if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if len(connections[victim]) == 0 || first != (victim == own) {
				t.Errorf("%d connections, none as wanted", len(connections))
			}
			for _, i := range connections[victim] {
				<-g.commands[i].ended
				r.want(g.commands[i].result, 255, "", "Connection to "+r.target()+" closed by remote host.\r\n")
			}
			g.part(connections[victim])
			// A master without its first connection serves nobody any more.
			r.want(r.run(r.forwarding(path, "echo next")), 0, "next\n", "")
			r.wantSessions(map[bool]int64{false: 1, true: 2}[first])
		})
	}
}

// TestOldAgentTakesOneConnection: an agent from before multiplexing has one connection at a time, on
// which commands wait in turn.
func TestOldAgentTakesOneConnection(t *testing.T) {
	r := newRig(t, lab.Options{AgentVersion: "3.0.196.0"})
	path := r.path("cp")
	most := 0
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-tick.C:
				most = max(most, r.sshdConnections())
			case <-done:
				tick.Stop()
				return
			}
		}
	})
	r.atOnce(25, func(_ int, run string) *exec.Cmd { return r.forwarding(path, "sleep 0.3; "+run) })
	close(done)
	watching.Wait()
	if most != 1 {
		t.Errorf("%d connections", most)
	}
	r.wantSessions(1)
}

// TestQueueWhereAnotherConnectionWouldAsk: without the agent that the first connection had its key from,
// a further one can't be had, and commands wait in turn.
func TestQueueWhereAnotherConnectionWouldAsk(t *testing.T) {
	testenv.Need(t, "ssh-agent", "ssh-add", "ssh-keygen")
	r := newRig(t, lab.Options{})
	socket := r.path("agent")
	agent := r.prepare(exec.Command("ssh-agent", "-D", "-a", socket))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("the agent", func() bool { return exists(socket) })
	add := exec.Command("ssh-add", "-q", r.labEnv("SSM_SSH_LAB_KEY"))
	add.Env = []string{"SSH_AUTH_SOCK=" + socket}
	r.want(r.run(add), 0, "", "")
	r.writeConfig("config", r.target(), "IdentityFile "+r.encryptedKey("open sesame"), "IdentitiesOnly yes",
		"UserKnownHostsFile "+r.labEnv("SSM_SSH_LAB_KNOWN_HOSTS"), "IdentityAgent "+socket)
	r.env = append(r.env, "SSM_SSH_CONFIG="+r.path("config"))
	path := r.path("cp")
	r.want(r.run(r.forwarding(path, "true")), 0, "", "")
	agent.Process.Kill()
	agent.Wait()
	r.atOnce(25, func(_ int, run string) *exec.Cmd { return r.forwarding(path, "sleep 0.3; "+run) })
	if n := r.sshdConnections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	r.wantSessions(1)
}

// TestRemoteHostDocument leads through the node to another host's sshd. In the lab that is the node's.
func TestRemoteHostDocument(t *testing.T) {
	r := newRig(t, lab.Options{})
	args := []string{"-o", "SSMDocument=AWS-StartPortForwardingSessionToRemoteHost", "-o", "SSMTarget=" + r.target(),
		"-o", "HostKeyAlias=" + r.target(), "-o", "User=" + r.labEnv("SSM_SSH_LAB_USER"), "-i", r.labEnv("SSM_SSH_LAB_KEY"),
		"-o", "UserKnownHostsFile=" + r.labEnv("SSM_SSH_LAB_KNOWN_HOSTS")}
	r.want(r.ssh(append(args, "-p", r.lab.Node(0).SSHPort(), "127.0.0.1", "echo there")...), 0, "there\n", "")
	// Nobody listens there: the node says so.
	closed := append(args, "-p", "1", "127.0.0.2", "true")
	if got := r.ssh(closed...); got.status != 255 || !strings.Contains(got.stderr, "reach sshd on port 1") {
		t.Errorf("closed port: %+v", got)
	}
	r.wantSessions(2)
}

// TestDocumentWithoutAPort: what leads to no port is told apart from an sshd that is silent.
func TestDocumentWithoutAPort(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.want(r.run(r.by("Lab-StartShellDespitePort", r.path("cp"), "true")), 255, "",
		"ssm-ssh: "+r.target()+": open data channel: not a port session; SSMDocument must name one that leads to a TCP port\r\n")
	r.wantSessions(1)
}

// TestForwardsBesideManyConnections: what is forwarded goes over the first connection, whatever rides on
// others. The document is one of the user's own.
func TestForwardsBesideManyConnections(t *testing.T) {
	const own = "Lab-StartForwardingSession"
	r := newRig(t, lab.Options{})
	path := r.path("cp")
	r.want(r.run(r.by(own, path, "true")), 0, "", "")
	g := r.gather(15, func(_ int, run string) *exec.Cmd { return r.by(own, path, run) })
	if n := len(g.await()); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
	stdio := r.prepare(stock(path, "-W", "127.0.0.1:"+r.lab.Node(0).SSHPort(), "x"))
	out, err := stdio.StdoutPipe()
	if err == nil {
		err = stdio.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		t.Errorf("through -W: %q, %v", line, err)
	}
	stdio.Process.Kill()
	stdio.Wait()
	soakForward(r, path, 0)
	g.part(nil)
	r.want(r.run(r.by(own, path, "-O", "stop")), 0, "", "Stop listening request sent.\r\n")
	if c := r.settled(); c.LiveSessions != 0 {
		t.Errorf("%d sessions left after -O stop", c.LiveSessions)
	}
	r.wantSessions(1)
}
