package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// ways of naming a control path: by the user, or not at all.
var controlPaths = map[string]func(*rig) []string{
	"explicit": func(r *rig) []string { return []string{"-S", r.path("cp")} },
	"implicit": func(*rig) []string { return nil },
}

// atOnce runs n commands at once and checks that each has run, once.
func (r *rig) atOnce(n int, command func(i int, run string) *exec.Cmd) {
	r.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			got := r.run(command(i, fmt.Sprintf("echo %d; exit %d", i, i%200)))
			r.want(got, i%200, fmt.Sprintf("%d\n", i), "")
		})
	}
	wg.Wait()
}

func TestManyClientsOnAColdPath(t *testing.T) {
	for name, args := range controlPaths {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, lab.Options{})
			r.atOnce(30, func(_ int, run string) *exec.Cmd { return exec.Command(binary, append(args(r), r.target(), run)...) })
			r.wantSessions(1)
		})
	}
}

// TestMastersThatRace has callers make masters of one path that don't see each other's locks: one
// master stays, and all are served.
func TestMastersThatRace(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.atOnce(4, func(i int, run string) *exec.Cmd {
		cmd := exec.Command(binary, "-S", r.path("cp"), r.target(), run)
		own := r.path(fmt.Sprint("run", i))
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Error(err)
		}
		cmd.Env = []string{"XDG_RUNTIME_DIR=" + own}
		return cmd
	})
	r.await("the other sessions' end", func() bool { return r.lab.Counts().LiveSessions == 1 })
	t.Logf("%d sessions", r.lab.Counts().StartSession)
}

// TestManyMoreThanMaxSessions: sshd allows ten channels, and 200 commands come at once, in a session that
// takes one connection and in one that takes more.
func TestManyMoreThanMaxSessions(t *testing.T) {
	testenv.Need(t, "ssh")
	for _, document := range []string{"AWS-StartSSHSession", forwardingDocument} {
		t.Run(document, func(t *testing.T) {
			r := newRig(t, lab.Options{})
			path, option := r.path("cp"), "SSMDocument="+document
			r.want(r.ssh("-o", option, "-S", path, r.target(), "true"), 0, "", "")
			pid := r.masterPID(path)
			before := footprintOf(pid)
			before.descriptors += firstUse
			r.atOnce(200, func(i int, run string) *exec.Cmd {
				if i%4 == 0 {
					return exec.Command(binary, "-o", option, "-S", path, r.target(), run)
				}
				return stock(path, "x", run)
			})
			if after := r.settledFootprint(pid, before); after.descriptors > before.descriptors {
				t.Errorf("the master has grown from %+v to %+v", before, after)
			}
			r.wantSessions(1)
		})
	}
}

// TestCommandsAsMastersExpire has clients come again and again at the very time at which their master
// ends: each command runs, and runs once.
func TestCommandsAsMastersExpire(t *testing.T) {
	const persist = time.Second
	commands, nodes, most := 10_000, 6, 8
	if testing.Short() {
		commands, nodes, most = 200, 2, 4
	}
	const paths = 4 // of a node, whose sshd drops connections when more than ten begin at once
	r := newRig(t, lab.Options{Nodes: nodes})
	r.open()
	var given atomic.Int64
	var wg sync.WaitGroup
	for i := range nodes * paths {
		args := []string{"-o", "ControlPersist=" + persist.String(), "-S", r.path(fmt.Sprintf("cp%d", i)), r.lab.Targets()[i/paths]}
		if i%paths == 0 {
			args = slices.Delete(args, 2, 4) // one implicit path a node
		}
		wg.Go(func() { r.returnAtExpiry(args, persist, most, int64(commands), &given) })
	}
	wg.Wait()
	ran := make(map[string]int)
	text, err := os.ReadFile(r.path("ran"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		ran[line]++
	}
	for i := range min(given.Load(), int64(commands)) {
		if n := ran[fmt.Sprintf("%d\n", i)]; n != 1 {
			t.Errorf("command %d ran %d times", i, n)
		}
	}
	t.Logf("%d commands, %d masters", len(ran), r.lab.Counts().StartSession)
}

// returnAtExpiry gives commands to one control path, up to most at once, with pauses around the persist
// time, until enough were given by all.
func (r *rig) returnAtExpiry(args []string, persist time.Duration, most int, enough int64, given *atomic.Int64) {
	const around = 150 * time.Millisecond
	for {
		var batch sync.WaitGroup
		for range 1 + rand.N(most) {
			i := given.Add(1) - 1
			if i >= enough {
				break
			}
			batch.Go(func() {
				run := fmt.Sprintf("echo %d >> %s", i, r.path("ran"))
				r.want(r.run(exec.Command(binary, append(args[:len(args):len(args)], run)...)), 0, "", "")
			})
		}
		batch.Wait()
		if given.Load() >= enough || r.Failed() {
			return
		}
		<-time.After(persist - around + rand.N(2*around))
	}
}

func TestKilledMastersSocketIsReplaced(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	pid := r.masterPID(r.socket())
	send(syscall.SIGKILL)(r, pid)
	r.awaitDeath(pid)
	r.atOnce(10, func(_ int, run string) *exec.Cmd { return exec.Command(binary, r.target(), run) })
	r.wantSessions(2)
	r.await("the end of the killed one's session", func() bool { return r.lab.Counts().LiveSessions == 1 })
}

// TestThoseWhoWaitTakeOver: the call that makes the master fails, and one that has waited for it makes it
// then; only the first has anything to say.
func TestThoseWhoWaitTakeOver(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.lab.Faults().FailAPI("StartSession", "AccessDeniedException", 1)
	var failed atomic.Int64
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			got := r.ssh(r.target(), fmt.Sprintf("echo %d", i))
			if got.status == 255 && strings.Contains(got.stderr, "ssm:StartSession") { // the right that is missing
				failed.Add(1)
				return
			}
			r.want(got, 0, fmt.Sprintf("%d\n", i), "")
		})
	}
	wg.Wait()
	if failed.Load() != 1 {
		t.Errorf("%d calls failed, want the one that was refused", failed.Load())
	}
	r.wantSessions(1)
}

// TestWaitingEndsWithConnectTimeout: who waits for another's master doesn't wait longer than for its own.
func TestWaitingEndsWithConnectTimeout(t *testing.T) {
	r := newRig(t, lab.Options{})
	r.lab.Faults().Set(lab.FaultSet{API: map[string]lab.APIFault{"StartSession": {Hang: true, Times: 1}}})
	first := r.prepare(exec.Command(binary, r.target(), "true"))
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { first.Process.Signal(syscall.SIGTERM); first.Wait() }()
	r.await("the first call's master", func() bool { return masterBelow(r.runtime, 0) != 0 })
	began := time.Now()
	got := r.ssh("-o", "ConnectTimeout=1", r.target(), "true")
	if got.status != 255 || !strings.Contains(got.stderr, "ConnectTimeout") {
		t.Errorf("got %+v", got)
	}
	if took := time.Since(began); took < time.Second || took > 15*time.Second {
		t.Errorf("it took %v, want a second", took)
	}
}

// squatter is a listener on a control path that is no control master.
type squatter struct {
	name    string
	says    []byte
	deaf    bool // accepts nobody
	hangsUp bool // closes after its words
}

var squatters = []squatter{
	{name: "accepts nobody", deaf: true},
	{name: "says nothing"},
	{name: "says HELLO and no more", says: muxHello(4)},
	{name: "hangs up", hangsUp: true},
	{name: "hangs up after HELLO", says: muxHello(4), hangsUp: true},
	{name: "speaks another version", says: muxHello(3)},
	{name: "speaks another protocol", says: []byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
}

// muxHello is a master's HELLO.
func muxHello(version byte) []byte { return []byte{0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, version} }

func TestForeignListenerOnTheControlPath(t *testing.T) {
	const patience = 5 * time.Second
	r := newRig(t, lab.Options{})
	r.want(r.ssh(r.target(), "true"), 0, "", "")
	implicit := r.socket()
	r.want(r.ssh("-O", "exit", r.target()), 0, "", "Exit request sent.\r\n")
	r.await("the implicit master's end", func() bool { return !exists(implicit) })
	var wg sync.WaitGroup
	meet := func(s squatter, path string, args ...string) {
		s.squat(t, path)
		wg.Go(func() {
			began := time.Now()
			got := r.ssh(append(args, "-o", fmt.Sprintf("ConnectTimeout=%g", patience.Seconds()), r.target(), "echo here")...)
			if got.status != 0 || got.stdout != "here\n" || !strings.HasSuffix(got.stderr, "ControlSocket "+path+" already exists, disabling multiplexing\r\n") {
				t.Errorf("%s: got %+v", s.name, got)
			}
			if took := time.Since(began); took > 3*patience {
				t.Errorf("%s: it took %v", s.name, took)
			}
			if !exists(path) {
				t.Errorf("%s: the listener's socket has gone", s.name)
			}
		})
	}
	meet(squatters[0], implicit)
	for i, s := range squatters {
		path := r.path(fmt.Sprint("cp", i))
		meet(s, path, "-S", path)
	}
	wg.Wait()
	r.wantSessions(int64(len(squatters)) + 2) // one for each command, and the first
}

// squat listens at path until the test ends.
func (s squatter) squat(t *testing.T, path string) {
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var held []net.Conn
		for !s.deaf {
			c, err := l.Accept()
			if err != nil {
				break
			}
			c.Write(s.says)
			if s.hangsUp {
				c.Close()
			}
			held = append(held, c)
		}
		for _, c := range held {
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
}
