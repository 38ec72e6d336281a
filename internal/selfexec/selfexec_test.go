package selfexec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary plays the caller (with callerVariable set) and the child (made by Start) too.
const callerVariable = "SELFEXEC_TEST_CALLER"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(handlesVariable) != "":
		os.Exit(childMain())
	case os.Getenv(callerVariable) != "":
		os.Exit(callerMain())
	}
	goleak.VerifyTestMain(m)
}

// wish is what a test asks of the child, as its options.
type wish struct {
	Socket string // where facts are reported; the child lives until its connection ends
	Do     string // ready, fail, die, wait
}

// facts are what the child sees.
type facts struct {
	Stage       string
	PID         int
	Args        []string
	Secret      string
	Folder      string
	Session     bool  // leads one of its own
	Terminal    bool  // can open /dev/tty
	Descriptors []int // without close-on-exec: those that others know of
	Files       []string
	Cause       string
	Signalled   bool
}

func childMain() int {
	p, err := Inherit()
	if err != nil {
		fmt.Println(err)
		return 3
	}
	var w wish
	if err := p.Options(&w); err != nil {
		return 4
	}
	ctx, cancel := p.Context(context.Background())
	defer cancel()
	conn, err := net.Dial("unix", w.Socket)
	if err != nil {
		return 5
	}
	report := json.NewEncoder(conn)
	report.Encode(look("inherited", p, ctx))
	switch w.Do {
	case "fail":
		p.Fail("two\nlines", 77)
		return 0
	case "die":
		return 9
	case "wait":
		<-ctx.Done()
		report.Encode(look("orphaned", p, ctx))
		return 0
	}
	if err := p.Detach(syscall.SIGINT, syscall.SIGHUP); err != nil {
		p.Fail(err.Error(), 1)
		return 6
	}
	report.Encode(look("detached", p, ctx))
	if err := p.Ready(); err != nil {
		return 7
	}
	report.Encode(look("ready", p, ctx))
	io.Copy(io.Discard, conn)
	return 0
}

func look(stage string, p *Parent, ctx context.Context) facts {
	f := facts{Stage: stage, PID: os.Getpid(), Args: os.Args, Secret: os.Getenv("SELFEXEC_TEST_SECRET"), Signalled: signal.Ignored(syscall.SIGHUP)}
	f.Folder, _ = os.Getwd()
	sid, err := unix.Getsid(0)
	f.Session = err == nil && sid == os.Getpid()
	if tty, err := os.Open("/dev/tty"); err == nil {
		f.Terminal = true
		tty.Close()
	}
	for _, fd := range openDescriptors() {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			f.Descriptors = append(f.Descriptors, fd)
		}
	}
	for _, file := range p.Files {
		text, _ := io.ReadAll(file)
		f.Files = append(f.Files, string(text))
	}
	if err := context.Cause(ctx); err != nil {
		f.Cause = err.Error()
	}
	return f
}

// callerMain starts a child on behalf of a process of its own, and ends as told by its argument.
func callerMain() int {
	var w wish
	if err := json.Unmarshal([]byte(os.Getenv(callerVariable)), &w); err != nil {
		return 3
	}
	child, err := Start(context.Background(), Spec{Args: []string{"internal-test"}, Options: w, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if err != nil {
		fmt.Println(err)
		return 4
	}
	if w.Do == "wait" {
		select {} // until killed
	}
	if err := child.WaitReady(context.Background()); err != nil {
		fmt.Println(err)
		return 5
	}
	fmt.Println("caller done")
	return 0
}

// hearer takes the child's facts.
type hearer struct {
	*testing.T
	listener net.Listener
	conn     net.Conn
	facts    *json.Decoder
}

func newHearer(t *testing.T) *hearer {
	t.Helper()
	dir, err := os.MkdirTemp("", "selfexec") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hearer{T: t, listener: l}
	t.Cleanup(func() {
		l.Close()
		if h.conn != nil {
			h.conn.Close()
		}
	})
	return h
}

func (h *hearer) wish(do string) wish { return wish{h.listener.Addr().String(), do} }

const patience = 20 * time.Second

// hear returns the facts of a stage, the next that the child reports.
func (h *hearer) hear(stage string) facts {
	h.Helper()
	if h.conn == nil {
		h.listener.(*net.UnixListener).SetDeadline(time.Now().Add(patience))
		var err error
		if h.conn, err = h.listener.Accept(); err != nil {
			h.Fatal(err)
		}
		h.conn.SetReadDeadline(time.Now().Add(patience))
		h.facts = json.NewDecoder(h.conn)
	}
	var f facts
	if err := h.facts.Decode(&f); err != nil {
		h.Fatalf("waiting for %q: %v", stage, err)
	}
	if f.Stage != stage {
		h.Fatalf("heard %+v, want stage %q", f, stage)
	}
	return f
}

// end lets the child end, and waits for it.
func (h *hearer) end(c *Child) {
	h.Helper()
	h.conn.Close()
	select {
	case <-c.Done():
	case <-time.After(patience):
		h.Fatal("the child doesn't end")
	}
}

func TestReadyChildHasGivenEverythingUp(t *testing.T) {
	h := newHearer(t)
	extra, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "handed over")
	w.Close()
	t.Setenv("SELFEXEC_TEST_SECRET", "token")
	c, err := Start(t.Context(), Spec{Args: []string{"internal-test", "/some/path"}, Options: h.wish("ready"), ExtraFiles: []*os.File{extra}})
	extra.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := h.hear("inherited")
	if first.Session || first.Secret != "token" || !slices.Equal(first.Files, []string{"handed over"}) || first.PID != c.PID() {
		t.Errorf("at first %+v", first)
	}
	if want := []string{"ssm-ssh", "internal-test", "/some/path"}; !slices.Equal(first.Args, want) {
		t.Errorf("argv %q, want %q", first.Args, want)
	}
	if want := []int{0, 1, 2}; !slices.Equal(first.Descriptors, want) {
		t.Errorf("descriptors for others %v, want %v", first.Descriptors, want)
	}
	then := h.hear("detached")
	if !then.Session || then.Terminal || then.Folder != "/" || !then.Signalled {
		t.Errorf("detached %+v", then)
	}
	if last := h.hear("ready"); last.Cause != "" {
		t.Errorf("a ready child is told that its caller has gone: %+v", last)
	}
	if runtime.GOOS == "linux" {
		checkProc(t, c.PID())
	}
	h.end(c)
	if err := syscall.Kill(c.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
}

// checkProc looks at what others see of the child.
func checkProc(t *testing.T, pid int) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	environ, err := os.ReadFile(proc + "environ")
	if err != nil || strings.Contains(string(environ), "token") || !strings.Contains(string(environ), handlesVariable) {
		t.Errorf("environ %q, %v", environ, err)
	}
	comm, err := os.ReadFile(proc + "comm")
	if err != nil || string(comm) != programName+"\n" {
		t.Errorf("comm %q, %v", comm, err)
	}
	for fd := range 3 {
		if link, err := os.Readlink(fmt.Sprintf("%sfd/%d", proc, fd)); err != nil || link != os.DevNull {
			t.Errorf("descriptor %d is %q, %v", fd, link, err)
		}
	}
}

func TestChildThatIsNotReady(t *testing.T) {
	t.Run("fails", func(t *testing.T) {
		h := newHearer(t)
		c, err := Start(t.Context(), Spec{Options: h.wish("fail")})
		if err != nil {
			t.Fatal(err)
		}
		h.hear("inherited")
		var failure *Failure
		if err := c.WaitReady(t.Context()); !errors.As(err, &failure) || *failure != (Failure{"two\nlines", 77}) {
			t.Errorf("got %v", err)
		}
		h.end(c)
	})
	t.Run("dies", func(t *testing.T) {
		h := newHearer(t)
		c, err := Start(t.Context(), Spec{Options: h.wish("die")})
		if err != nil {
			t.Fatal(err)
		}
		h.hear("inherited")
		if err := c.WaitReady(t.Context()); err == nil || err.Error() != "the child ended before it was ready: exit status 9" {
			t.Errorf("got %v", err)
		}
		h.end(c)
	})
	t.Run("is given up", func(t *testing.T) {
		h := newHearer(t)
		c, err := Start(t.Context(), Spec{Options: h.wish("wait")})
		if err != nil {
			t.Fatal(err)
		}
		h.hear("inherited")
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if err := c.WaitReady(ctx); !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		if f := h.hear("orphaned"); f.Cause != ErrCallerGone.Error() {
			t.Errorf("heard %+v", f)
		}
		h.end(c)
	})
}

// caller starts the test binary as a caller.
func caller(t *testing.T, w wish) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), callerVariable+"="+string(text))
	return cmd
}

func TestKilledCallerEndsTheChild(t *testing.T) {
	h := newHearer(t)
	cmd := caller(t, h.wish("wait"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.hear("inherited")
	cmd.Process.Kill()
	cmd.Wait()
	if f := h.hear("orphaned"); f.Cause != ErrCallerGone.Error() {
		t.Errorf("heard %+v", f)
	}
}

// As in `ssm-ssh host true | cat`, and under sshpass, whose pipe has a number of its own: whoever
// reads what the caller writes must see its end when the caller ends, though the child lives.
func TestNothingOfTheCallerStaysOpen(t *testing.T) {
	h := newHearer(t)
	cmd := caller(t, h.wish("ready"))
	stray, strayW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()
	cmd.ExtraFiles = []*os.File{nil, strayW, nil, nil, nil, strayW} // 4, which ready has in the child, and 8
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	strayW.Close()
	for name, r := range map[string]io.Reader{"stdout": out, "stderr": errs, "stray": stray} {
		text, err := readAll(r)
		want := map[string]string{"stdout": "caller done\n"}[name]
		if err != nil || text != want {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for _, stage := range []string{"inherited", "detached", "ready"} {
		h.hear(stage) // it lives
	}
}

// readAll reads to the end, which must come in good time.
func readAll(r io.Reader) (string, error) {
	r.(interface{ SetReadDeadline(time.Time) error }).SetReadDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(r)
	return string(text), err
}

func TestChildKeepsTheTerminalUntilItDetaches(t *testing.T) {
	h := newHearer(t)
	terminal, err := pty.Start(caller(t, h.wish("ready")))
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if f := h.hear("inherited"); !f.Terminal || f.Session {
		t.Errorf("at first %+v", f)
	}
	if f := h.hear("detached"); f.Terminal || !f.Session {
		t.Errorf("detached %+v", f)
	}
	h.hear("ready")
	io.Copy(io.Discard, terminal) // ends when nobody holds the terminal any more
}

func TestNotStarted(t *testing.T) {
	for _, value := range []string{"", "3", "3,x", "0,1", "3,-1", "3,99999999", ","} {
		t.Run(value, func(t *testing.T) {
			t.Setenv(handlesVariable, value)
			if _, err := Inherit(); !errors.Is(err, ErrNotStarted) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzHandles(f *testing.F) {
	for _, seed := range []string{"", "3,4", "3,4,5", "3,,4", "65536,3", "03,4"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		numbers, err := handles(value)
		if err == nil && (len(numbers) < pipes || slices.Min(numbers) < firstExtra) {
			t.Errorf("%q gives %v", value, numbers)
		}
	})
}

func TestPlainEnv(t *testing.T) {
	got := plainEnv([]string{"HOME=/h", "AWS_SECRET_ACCESS_KEY=s", "PATH=/p", "HOMELESS=1", "odd"})
	if want := []string{"HOME=/h", "PATH=/p"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
