package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"ssm-ssh/test/lab"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ssm-ssh": main, "ssh": main})
}

// TestScripts runs the program through its real main, under its real names, against the lab. A
// script finds the node as $NODE and the program as ssm-ssh; "status N command…" checks an exit
// status, "sessions N" how many were started so far.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata/script",
		Setup: startLab,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": cmdStatus, "sessions": cmdSessions,
		},
		Condition: stockCondition,
	})
}

// stockCondition answers [stock9.2]: the ssh here is of the release whose texts we have.
func stockCondition(name string) (bool, error) {
	if name != "stock9.2" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	version, err := exec.Command("/usr/bin/ssh", "-V").CombinedOutput()
	return err == nil && strings.HasPrefix(string(version), "OpenSSH_9.2"), nil
}

// settleLimit is how long the end of a script waits for masters to end their sessions.
const settleLimit = 8 * time.Second

func startLab(env *testscript.Env) error {
	l, err := lab.Start(context.Background(), lab.Options{})
	if err != nil {
		return err
	}
	// sun_path is short, and a script's work folder may not be.
	runtime, err := os.MkdirTemp("", "run")
	if err != nil {
		return err
	}
	env.Vars = append(env.Vars, l.Env()...)
	env.Vars = append(env.Vars, "NODE="+l.Targets()[0], "XDG_RUNTIME_DIR="+runtime)
	env.Defer(func() {
		endMasters(env, runtime)
		endMasters(env, env.WorkDir)
		if c := l.Settle(context.Background(), settleLimit); c.LiveSessions != 0 {
			env.T().Log("sessions left alive: ", c.LiveSessions)
			env.T().FailNow()
		}
		if err := l.Close(); err != nil {
			env.T().Log(err)
			env.T().FailNow()
		}
		os.RemoveAll(runtime)
	})
	return nil
}

// endMasters asks every master below dir to exit, by stock ssh.
func endMasters(env *testscript.Env, dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&os.ModeSocket != 0 {
			cmd := exec.Command("/usr/bin/ssh", "-F", "none", "-S", path, "-O", "exit", "x")
			if out, err := cmd.CombinedOutput(); err != nil {
				env.T().Log(path, err, string(out))
			}
		}
		return nil
	})
}

// cmdStatus is "status N command args…".
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [args]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%s: status %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// cmdSessions is "sessions N".
func cmdSessions(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sessions N")
	}
	answer, err := http.Get(ts.Getenv("SSM_SSH_LAB_CONTROL") + "/counts")
	ts.Check(err)
	defer answer.Body.Close()
	var counts lab.Counts
	ts.Check(json.NewDecoder(answer.Body).Decode(&counts))
	if got := strconv.FormatInt(counts.StartSession, 10); got != args[0] {
		ts.Fatalf("%s sessions started, want %s", got, args[0])
	}
}
