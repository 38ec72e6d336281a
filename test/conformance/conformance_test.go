package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
)

func TestMain(m *testing.M) {
	if isWorker() {
		os.Exit(work(os.Args[1:]))
	}
	testenv.Main(m)
}

// TestScripts runs the quick set, and in full length all scripts, each of which must come out as the
// table says.
func TestScripts(t *testing.T) {
	if err := needs(); err != nil {
		testenv.Missing(t, err.Error())
	}
	set := all
	if testing.Short() {
		set = quick
	}
	chosen, err := choose([]string{set})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := testenv.Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	races := filepath.Join(dir, "race")
	r := runner{ssh: program, jobs: defaultJobs(), env: []string{"GORACE=atexit_sleep_ms=0 log_path=" + races}}
	reported := 0
	err = r.run(t.Context(), chosen, func(v verdict) {
		reported++
		t.Log(v)
		if s := v.surprise(); s != "" {
			t.Error(s)
		}
	})
	if err != nil || reported != len(chosen) {
		t.Errorf("%d of %d scripts ran: %v", reported, len(chosen), err)
	}
	if found, _ := filepath.Glob(races + "*"); len(found) > 0 {
		text, _ := os.ReadFile(found[0])
		t.Errorf("data race in the program:\n%s", text)
	}
}

// Without this a runner that calls everything a pass would do: no script may pass with a program that
// always fails, nor with one that does nothing and succeeds.
func TestProgramsThatDoNothingFail(t *testing.T) {
	if err := needs(); err != nil {
		testenv.Missing(t, err.Error())
	}
	chosen, err := choose([]string{"transfer"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"false", "true"} {
		path, err := program(name)
		if err != nil {
			t.Fatal(err)
		}
		err = runner{ssh: path, jobs: len(chosen)}.run(t.Context(), chosen, func(v verdict) {
			if v.result != fail || v.why == "" {
				t.Errorf("with %s in the place of ssh: %v", name, v)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestJudge(t *testing.T) {
	failed := exec.Command("false").Run()
	tests := []struct {
		name, output, log string
		err               error
		result            result
		why               string
	}{
		{"passes", "ok simple connect\n", "", nil, pass, ""},
		{"skips", "SKIPPED: no netcat\n", "", nil, skip, "SKIPPED: no netcat"},
		{"skips a part", "run test connect\nskipped: was here before\n", "", nil, skip, "skipped: was here before"},
		{"fails", "x\nfailed connect\n", "trace: x\nFAIL: first\nFAIL: second\n", failed, fail, "first"},
		{"fails fatally", "failed\n", "FATAL: no sshd\x1b[1m running\r\n", failed, fail, "no sshd[1m running"},
		{"fails without a word in the log", "a\nsyntax error\n", "", failed, fail, "syntax error"},
		{"hangs", "a\nwaiting\n", "", errors.New("no end within 1s"), fail, "no end within 1s: waiting"},
		{"says nothing", "", "", failed, fail, ""},
		{"says much", strings.Repeat("ä", 100), "", failed, fail, strings.Repeat("ä", 60) + "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if result, why := judge(tt.output, tt.log, tt.err); result != tt.result || why != tt.why {
				t.Errorf("got %s, %q, want %s, %q", result, why, tt.result, tt.why)
			}
		})
	}
}

func TestSurprise(t *testing.T) {
	known, sound := script{name: "a", fails: "because"}, script{name: "b"}
	tests := []struct {
		name string
		verdict
		want string
	}{
		{"passes as expected", verdict{script: sound, result: pass}, ""},
		{"fails as expected", verdict{script: known, result: fail, why: "x"}, ""},
		{"fails", verdict{script: sound, result: fail, why: "x"}, "b: fail: x"},
		{"skips", verdict{script: sound, result: skip, why: "x"}, "b: skip: x"},
		{"passes at last", verdict{script: known, result: pass}, "a passes, and the table has a reason why it can't: because"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.verdict.surprise(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	count := func(words ...string) int {
		chosen, err := choose(words)
		if err != nil {
			t.Error(err)
		}
		return len(chosen)
	}
	if nothing, c, q := count(), count(core), count(quick); nothing != c || c != 33 || q != 20 || count(core, quick, "connect") != c {
		t.Errorf("core has %d, quick %d, nothing said means %d", c, q, nothing)
	}
	if n := count(all); n != len(scripts) || n != count(core, slow, server) {
		t.Errorf("all are %d of %d", n, len(scripts))
	}
	if _, err := choose([]string{"nonsense"}); err == nil {
		t.Error("nonsense is taken")
	}
}

// What a script leaves behind has ended when its worker has, whether the script came to its end or
// was cut short; here a grandchild in a session of its own.
func TestNothingIsLeftBehind(t *testing.T) {
	for _, how := range []string{"ends", "cut"} {
		t.Run(how, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			ending := "exit 3"
			if how == "cut" {
				ending = "sleep 600"
			}
			cmd, lifeline, err := worker(false, "sh", "-c",
				`setsid sh -c 'sleep 601 & echo $! >"$0.new"; mv "$0.new" "$0"; sleep 602' "$0" &
				while [ ! -e "$0" ]; do sleep 0.1; done; `+ending, file)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			orphan := await(t, file)
			if how == "cut" {
				lifeline.Close()
			}
			cmd.Wait()
			want := map[string]int{"ends": 3, "cut": 128 + int(syscall.SIGKILL)}[how]
			if got := cmd.ProcessState.ExitCode(); got != want {
				t.Errorf("status %d, want %d", got, want)
			}
			if err := syscall.Kill(orphan, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the orphan %d: %v", orphan, err)
			}
		})
	}
}

// await reads a number from a file that another process makes.
func await(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if text, err := os.ReadFile(file); err == nil {
			n, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s within a minute", file)
	return 0
}

func TestRunEndsWithItsContext(t *testing.T) {
	if err := needs(); err != nil {
		testenv.Missing(t, err.Error())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	err := runner{ssh: "/bin/true", jobs: 1}.run(ctx, scripts[:2], func(v verdict) { t.Errorf("reported: %v", v) })
	if err == nil {
		t.Error("no error")
	}
}

// The document shows the table, and nothing else.
func TestDocumentShowsTheTable(t *testing.T) {
	text, err := os.ReadFile("../../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := scores(); !strings.Contains(string(text), want) {
		t.Errorf("docs/conformance.md should have\n%s", want)
	}
}

// scores renders the table for people.
func scores() string {
	var text strings.Builder
	text.WriteString("| set | scripts | pass |\n|-----|--------:|-----:|\n")
	for _, set := range []string{quick, core, slow, server, all} {
		chosen, _ := choose([]string{set})
		passed := 0
		for _, s := range chosen {
			if s.fails == "" {
				passed++
			}
		}
		fmt.Fprintf(&text, "| %s | %d | %d |\n", set, len(chosen), passed)
	}
	text.WriteString("\n| doesn't pass | set | why |\n|--------------|-----|-----|\n")
	for _, s := range scripts {
		if s.fails != "" {
			fmt.Fprintf(&text, "| %s | %s | %s |\n", s.name, s.set, s.fails)
		}
	}
	return text.String()
}
