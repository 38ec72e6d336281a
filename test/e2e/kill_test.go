package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// TestKillsLeaveNothing kills master, client or both by SIGKILL at random moments under load, 200 times in
// full length: after the next start nothing of theirs is left, and the session of a process that lives,
// whose records and sockets lie beside theirs, goes on.
func TestKillsLeaveNothing(t *testing.T) {
	testenv.Need(t, "ssh")
	rigs, rounds := 4, 50
	if testing.Short() {
		rigs, rounds = 2, 5
	}
	var wg sync.WaitGroup
	for i := range rigs {
		wg.Go(func() { t.Run(fmt.Sprint(i), func(t *testing.T) { killRounds(t, rounds) }) })
	}
	wg.Wait()
}

func killRounds(t *testing.T, rounds int) {
	r := newRig(t, lab.Options{Nodes: 2, RTT: 10 * time.Millisecond})
	b := r.newBystander(r.lab.Targets()[1])
	for i := range rounds {
		r.killUnderLoad(i % 3)
		b.check()
		r.want(r.ssh("-S", "none", r.target(), "true"), 0, "", "")
		r.endImplicitMasters()
		r.await(fmt.Sprintf("the end of what round %d has left", i), func() bool {
			c := r.lab.Counts()
			return c.LiveSessions == 1 && c.LiveWorkers == 1 && r.lab.Node(0).SSHDChildren() == 0 && len(r.sockets()) == 0
		})
		if t.Failed() {
			break
		}
	}
	if n := r.sessionRecords(); n != 1 {
		t.Errorf("%d records of sessions, want the bystander's", n)
	}
	b.check()
	b.end()
	c := r.lab.Counts()
	t.Logf("%d kills: %d sessions started, %d asked to end", rounds, c.StartSession, c.TerminateSession)
}

// killUnderLoad lets three calls run and kills the first of them, its master, or both.
func (r *rig) killUnderLoad(whom int) {
	r.Helper()
	loads := []string{"sleep 0.3", "head -c 200000 /dev/zero", "cat >/dev/null"}
	var cmds []*exec.Cmd
	for _, run := range loads {
		cmd := r.prepare(exec.Command(binary, "-o", "ControlPersist=5", r.target(), run))
		cmd.Stdin = bytes.NewReader(make([]byte, 100_000))
		if err := cmd.Start(); err != nil {
			r.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	<-time.After(rand.N(1200 * time.Millisecond)) // any moment, a start's or a command's
	client := cmds[0].Process.Pid
	master := masterBelow(r.runtime, client)
	victims := [][]int{{master}, {client}, {master, client}}[whom]
	for _, pid := range victims {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended by itself
	}
	for _, cmd := range cmds {
		cmd.Wait() //nolint:errcheck // killed, or lost its master
	}
	r.awaitDeath(victims...)
}

// awaitDeath waits until the system is through with killed processes: what they held is free then.
func (r *rig) awaitDeath(pids ...int) {
	r.Helper()
	r.await("the death of those killed", func() bool {
		return !slices.ContainsFunc(r.living(), func(it journal.Item) bool { return slices.Contains(pids, it.PID) })
	})
}

// sockets lists the control sockets that nobody has named.
func (r *rig) sockets() []string {
	var found []string
	files, _ := filepath.Glob(filepath.Join(r.runtime, "ssm-ssh", "*"))
	for _, name := range files {
		if info, err := os.Lstat(name); err == nil && info.Mode()&os.ModeSocket != 0 {
			found = append(found, name)
		}
	}
	return found
}

// endImplicitMasters asks the masters that nobody has named to exit. One that was killed is not asked.
func (r *rig) endImplicitMasters() {
	for _, path := range r.sockets() {
		r.run(exec.Command("ssh", "-F", "none", "-S", path, "-O", "exit", "x"))
	}
}

// sessionRecords counts the records that name a session. One of an intent that became none stays for half a
// minute.
func (r *rig) sessionRecords() (n int) {
	for _, name := range r.records() {
		if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte(`"session":`)) {
			n++
		}
	}
	return n
}

// bystander is a call whose session must live through all that happens to others.
type bystander struct {
	*rig
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	n   int
}

func (r *rig) newBystander(target string) *bystander {
	r.Helper()
	b := &bystander{rig: r, cmd: r.prepare(exec.Command(binary, "-S", r.path("cp"), "-o", "ControlPersist=yes", target, "cat"))}
	var err error
	if b.in, err = b.cmd.StdinPipe(); err != nil {
		r.Fatal(err)
	}
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	b.out = bufio.NewReader(out)
	b.check()
	return b
}

// check sees a line there and back.
func (b *bystander) check() {
	b.Helper()
	b.n++
	want := fmt.Sprintf("line %d\n", b.n)
	_, err := io.WriteString(b.in, want)
	got := ""
	if err == nil {
		got, err = b.out.ReadString('\n')
	}
	if err != nil || got != want {
		b.Fatalf("the bystander's %q came back as %q, %v", want, got, err)
	}
}

func (b *bystander) end() {
	b.in.Close()
	if err := b.cmd.Wait(); err != nil {
		b.Errorf("the bystander: %v", err)
	}
}
