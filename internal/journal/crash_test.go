package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
)

// writerFolder has the test program be the writer of a record, and names its folder.
const writerFolder = "JOURNAL_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerFolder); dir != "" {
		if err := writer(dir, os.Getenv(writerFolder+"_STOP")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

// writer takes a record through its life. The service is a folder with a file for each session, named by
// the session's tag. At the step that is named it says so, and waits to be killed.
func writer(dir, stop string) error {
	reach := func(step string) {
		if step == stop {
			fmt.Println(step)
			select {}
		}
	}
	testOnlyStep = reach
	session := func(e *Entry) string { return filepath.Join(dir, "service", e.Record().Tag) }
	e, err := At(filepath.Join(dir, "journal")).Begin(Record{Tag: NewTag(), Target: "mi-1"})
	if err != nil {
		return err
	}
	reach("calling")
	if err := os.WriteFile(session(e), nil, 0o600); err != nil {
		return err
	}
	reach("started")
	if err := e.Started("session-"+e.Record().Tag, "me"); err != nil {
		return err
	}
	if err := os.Remove(session(e)); err != nil {
		return err
	}
	return e.Remove()
}

// steps are all the moments between two changes to the disk or to the service.
var steps = []string{"begin", "made", "locked", "written", "named", "calling", "started", "answered", "noted", "ended", "removed"}

// TestCrashAtEveryStep kills a writer at each: a reaper that comes then ends what there is to end, and
// leaves nothing.
func TestCrashAtEveryStep(t *testing.T) {
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			service := filepath.Join(dir, "service")
			if err := os.Mkdir(service, 0o700); err != nil {
				t.Fatal(err)
			}
			killAt(t, dir, step)
			left, err := os.ReadDir(service)
			if err != nil {
				t.Fatal(err)
			}
			j := At(filepath.Join(dir, "journal"))
			reap(t, j, service)
			if err := j.Sweep(time.Now().Add(2 * newLife)); err != nil {
				t.Error(err)
			}
			if now, err := os.ReadDir(service); err != nil || len(now) != 0 {
				t.Errorf("sessions %v are left, %v", now, err)
			}
			if !j.Empty() {
				t.Error("something is left in the journal")
			}
			if alive := step == "started" || step == "answered" || step == "noted"; alive != (len(left) == 1) {
				t.Errorf("at the crash there were the sessions %v", left)
			}
		})
	}
}

// killAt starts a writer and kills it at a step.
func killAt(t *testing.T, dir, step string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), writerFolder+"="+dir, writerFolder+"_STOP="+step)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || said != step+"\n" {
		t.Errorf("the writer said %q, %v", said, err)
	}
	items, err := At(filepath.Join(dir, "journal")).List()
	for _, it := range items {
		if it.State != Live {
			t.Errorf("a living writer's record: %v", it.State)
		}
	}
	if err := errors.Join(err, cmd.Process.Kill()); err != nil {
		t.Error(err)
	}
	cmd.Wait() //nolint:errcheck // it was killed
}

// reap ends every stale record's session, by its tag.
func reap(t *testing.T, j *Journal, service string) {
	t.Helper()
	items, err := j.List()
	if err != nil {
		t.Error(err)
	}
	for _, it := range items {
		if it.State != Stale {
			t.Errorf("the dead writer's record: %v", it.State)
		}
		e, err := j.Claim(it.Tag)
		if err != nil {
			t.Error(err)
			continue
		}
		if it.Session != "" && it.Session != "session-"+it.Tag {
			t.Errorf("session %q", it.Session)
		}
		if err := errors.Join(ignoreNotExist(os.Remove(filepath.Join(service, it.Tag))), e.Remove()); err != nil {
			t.Error(err)
		}
	}
}
