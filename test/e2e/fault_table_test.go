package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// A fault is a row of the table: what goes wrong, when, and what must come of it. Either all goes on
// with nothing lost, over the session that there was; or the call that it strikes ends with 255 and a
// clear text in bounded time, no session is left, and the next call works.
type fault struct {
	name   string
	full   bool // not in short mode
	opts   lab.Options
	args   []string // options of the program
	at     phase
	strike func(r *rig) // called at that phase; it may take its time
	heal   func(r *rig) // before the next call; all that Faults knows is healed in any case

	bytes  int           // of the transfer in one that goes on; 0 is transferBytes
	silent time.Duration // how long the silent command of one that goes on takes; 0 is short

	ends   string                // what stderr must match; empty: it goes on
	within time.Duration         // from the strike to the end of the call; 0 is endLimit
	fresh  bool                  // though no call ends, it goes on over a new session
	seen   func(lab.Counts) bool // that it has happened; nil: it shows in the outcome
}

// A phase is a moment in the life of a connection.
type phase int

const (
	always      phase = iota // from before the first call on
	inHandshake              // of the data channel
	inLogin                  // the SSH handshake
	inUpload
	inDownload
	inCommand // which is silent
	idle      // no client, a waiting master
)

const (
	endLimit = 10 * time.Second
	// silenceLimit is for a node that is gone while the service is there: keepalives and the wait for
	// an acknowledgement take their time.
	silenceLimit = 30 * time.Second
	// rowsAtOnce keeps two processors busy while most rows wait for something.
	rowsAtOnce = 6
)

// faults is the table.
func faults() []fault {
	return slices.Concat(wireFaults(), frameFaults(), cutFaults(), outageFaults(), apiFaults(), sessionFaults(), nodeFaults())
}

func TestFaults(t *testing.T) {
	testenv.Need(t, "sftp")
	var wg sync.WaitGroup
	slots := make(chan struct{}, rowsAtOnce)
	for _, f := range faults() {
		if f.full && testing.Short() {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(f.name, f.run)
		})
	}
	wg.Wait()
}

func (f fault) run(t *testing.T) {
	r := newRig(t, f.opts)
	r.open()
	began := time.Now()
	defer func() { // a line of the table
		c := r.lab.Counts()
		t.Logf("%s: %.1fs, %d sessions, %d resumed; up %d messages, %d again; down %d, %d again", f.name, time.Since(began).Seconds(),
			c.StartSession, c.ResumeSession, c.MessagesUp, c.RepeatsUp, c.MessagesDown, c.RepeatsDown)
	}()
	if f.at == always && f.strike != nil {
		f.strike(r)
	}
	if f.ends == "" {
		f.goOn(r)
	} else {
		f.end(r)
	}
	c := r.lab.Counts()
	if f.seen != nil && !f.seen(c) {
		t.Errorf("it did not happen: %+v", c)
	}
	if c.EarlyDiscarded > 0 {
		t.Errorf("%d messages were sent before the handshake was complete, and lost", c.EarlyDiscarded)
	}
	r.lab.SetLink(lab.Link{})
	r.lab.Faults().Clear()
}

// goOn takes a connection through all phases and compares what came through.
func (f fault) goOn(r *rig) {
	f.strikeDuring(r, []phase{inHandshake, inLogin}, func() { r.want(f.call(r, "true"), 0, "", "") })
	if f.at == idle {
		f.strike(r)
	}
	data := make([]byte, max(f.bytes, transferBytes()))
	rand.Read(data)
	if err := os.WriteFile(r.path("sent"), data, 0o644); err != nil {
		r.Fatal(err)
	}
	f.strikeDuring(r, []phase{inUpload, inDownload}, func() {
		if got := r.sftp(f.args, "put "+r.path("sent")+" "+r.path("there"), "get "+r.path("there")+" "+r.path("back")); got.status != 0 {
			r.Errorf("sftp: %+v", got)
		}
	})
	for _, name := range []string{"there", "back"} {
		if got, err := os.ReadFile(r.path(name)); err != nil || !bytes.Equal(got, data) {
			r.Errorf("%s: %d bytes that differ from the %d sent, %v", name, len(got), len(data), err)
		}
	}
	f.strikeDuring(r, []phase{inCommand}, func() {
		r.want(f.call(r, fmt.Sprintf("touch %s; sleep %g; echo out; echo err >&2; exit 7", r.path("started"), max(f.silent.Seconds(), 0.5))), 7, "out\n", "err\n")
	})
	if f.fresh {
		r.wantSessions(2)
	} else {
		r.wantSessions(1)
	}
}

// end lets the fault strike a call, and makes another when it is over.
func (f fault) end(r *rig) {
	if f.at > inLogin {
		r.want(f.call(r, "true"), 0, "", "")
	}
	if f.at == idle {
		f.strike(r)
	}
	var got result
	var over time.Time
	began := time.Now()
	took := f.strikeDuring(r, []phase{inHandshake, inLogin, inUpload, inDownload, inCommand}, func() {
		got = r.run(f.victim(r))
		over = time.Now()
	})
	if f.at == always || f.at == idle {
		took = over.Sub(began)
	}
	limit := f.within
	if limit == 0 {
		limit = endLimit
	}
	if got.status != 255 || !matches(f.ends, got.stderr) {
		r.Errorf("status %d, stderr %q, want 255 and a match of %q", got.status, got.stderr, f.ends)
	}
	if took > limit {
		r.Errorf("it took %v to end, more than %v", took, limit)
	}
	r.Logf("%s: ended after %.1fs with %q", f.name, took.Seconds(), got.stderr)
	r.lab.Faults().Clear()
	if f.heal != nil {
		f.heal(r)
	}
	if c := r.settled(); c.LiveSessions != 0 {
		r.Errorf("%d sessions left", c.LiveSessions)
	}
	r.want(f.call(r, "echo back"), 0, "back\n", "")
}

// victim is the call in which the fault strikes.
func (f fault) victim(r *rig) *exec.Cmd {
	command := "true"
	var stdin io.Reader
	switch f.at {
	case inUpload:
		command, stdin = "cat >/dev/null", endless{}
	case inDownload:
		command = "cat /dev/zero"
	case inCommand:
		command = "touch " + r.path("started") + "; sleep 100"
	}
	cmd := exec.Command(binary, f.arguments(r, command)...)
	cmd.Stdin = stdin
	if f.at == inDownload {
		cmd.Stdout = io.Discard
	}
	return cmd
}

// endless is a file without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func (f fault) arguments(r *rig, command string) []string {
	return append(slices.Clone(f.args), r.target(), command)
}

func (f fault) call(r *rig, command string) result { return r.ssh(f.arguments(r, command)...) }

// sftp runs OpenSSH's sftp over the program.
func (r *rig) sftp(args []string, batch ...string) result {
	r.Helper()
	cmd := exec.Command("sftp", append(append([]string{"-q", "-S", binary}, args...), "-b", "-", r.target())...)
	cmd.Stdin = strings.NewReader(strings.Join(batch, "\n") + "\n")
	return r.run(cmd)
}

func transferBytes() int {
	if testing.Short() {
		return 96 << 10
	}
	return 768 << 10
}

// strikeDuring runs work, and has the fault strike when its phase is reached, if it is one of the
// phases of this work. It returns how long the work went on from then on.
func (f fault) strikeDuring(r *rig, phases []phase, work func()) time.Duration {
	if !slices.Contains(phases, f.at) {
		work()
		return 0
	}
	ctx, cancel := context.WithCancel(r.Context())
	var striker sync.WaitGroup
	var struck, over time.Time
	before := r.lab.Counts()
	striker.Go(func() {
		for !f.at.reached(r, before) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
		struck = time.Now()
		f.strike(r)
	})
	work()
	over = time.Now()
	cancel()
	striker.Wait()
	if struck.IsZero() {
		r.Errorf("the moment to strike never came: %+v", r.lab.Counts())
	}
	return over.Sub(struck)
}

// reached tells from outside that a connection is in its phase. before is from the call's beginning.
func (p phase) reached(r *rig, before lab.Counts) bool {
	now := r.lab.Counts()
	third := int64(transferBytes() / 3)
	switch p {
	case inHandshake:
		return now.DataChannels > 0 && now.MessagesDown > 0
	case inLogin:
		return now.MessagesDown > 2 // the handshake's two, and sshd's first word
	case inUpload:
		return now.BytesUp-before.BytesUp > third
	case inDownload:
		return now.BytesDown-before.BytesDown > third
	case inCommand:
		_, err := os.Stat(r.path("started"))
		return err == nil
	}
	return true
}

// scaled is a duration for the short mode and one for the full.
func scaled(short, full time.Duration) time.Duration {
	if testing.Short() {
		return short
	}
	return full
}

// with switches faults on and leaves them on.
func with(set lab.FaultSet) func(*rig) {
	return func(r *rig) { r.lab.Faults().Set(set) }
}

// forSome switches faults on for a while.
func forSome(d time.Duration, set lab.FaultSet) func(*rig) {
	return func(r *rig) {
		r.lab.Faults().Set(set)
		<-time.After(d)
		r.lab.Faults().Clear()
	}
}

// all does one thing after the other.
func all(strikes ...func(*rig)) func(*rig) {
	return func(r *rig) {
		for _, s := range strikes {
			s(r)
		}
	}
}

func cutClients(r *rig) { r.lab.Faults().CutClients() }
func cutAgents(r *rig)  { r.lab.Faults().CutAgents() }
func byeClients(r *rig) { r.lab.Faults().ByeClients() }
func byeAgents(r *rig)  { r.lab.Faults().ByeAgents() }
func expire(r *rig)     { r.lab.Faults().Expire() }
func terminate(r *rig)  { r.lab.Faults().Terminate() }

func resumed(c lab.Counts) bool { return c.ResumeSession > 0 }

func (p phase) String() string {
	return [...]string{"all along", "in the handshake", "while logging in", "in mid-upload", "in mid-download", "in a silent command", "while idle"}[p]
}

// open lets the node's login, which may be another's, into the rig's folder.
func (r *rig) open() {
	r.Helper()
	if err := os.Chmod(r.dir, 0o777); err != nil {
		r.Fatal(err)
	}
}

func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }

// line is the pattern of one line of ours.
func line(what string) string {
	return fmt.Sprintf(`(?s)^([^\n]*\n)?ssm-ssh: [^\n]*%s[^\n]*\r\n$`, what)
}
