package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ssm-ssh/test/lab"
)

// TestBackgroundHoldsNothingOfItsCaller looks at a master, and at a session in the background, through
// proc(5): no terminal, group, folder, descriptor or secret of the one who has started it.
func TestBackgroundHoldsNothingOfItsCaller(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no proc(5) here")
	}
	r := newRig(t, lab.Options{})
	for _, row := range []struct {
		name, verb string
		args       []string
	}{
		{"implicit master", "internal-master", nil},
		{"master on a path", "internal-master", []string{"-S", r.path("cp")}},
		{"session of -f", "internal-session", []string{"-S", "none", "-f"}},
		{"master of -f -N -M", "internal-session", []string{"-S", r.path("fnm"), "-f", "-N", "-M"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := r.within(t)
			pid := r.startOnTerminal(row.verb, row.args)
			wantOwnSession(t, pid)
			if row.name != "session of -f" { // whose output is the command's
				wantNothingOpen(t, pid)
			}
			for _, file := range []string{"environ", "cmdline"} {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
				if err != nil || bytes.Contains(text, []byte("hush")) || bytes.Contains(text, []byte(r.environment("AWS_SECRET_ACCESS_KEY"))) {
					t.Errorf("%s: %q, %v", file, text, err)
				}
			}
			if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); cwd != "/" || err != nil {
				t.Errorf("its folder is %s, %v", cwd, err)
			}
			if p, err := os.FindProcess(pid); err == nil && row.verb == "internal-session" {
				p.Signal(os.Interrupt)
			}
		})
	}
}

// environment is one of the variables that the rig's programs get.
func (r *rig) environment(name string) string {
	for _, pair := range slices.Backward(r.env) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// startOnTerminal makes the call on a terminal, with a descriptor too many and a secret in its
// environment, and returns the process that it has left behind.
func (r *rig) startOnTerminal(verb string, args []string) (pid int) {
	r.Helper()
	before := processesOf(verb)
	reader, writer, err := os.Pipe()
	if err != nil {
		r.Fatal(err)
	}
	defer reader.Close()
	cmd := exec.Command(binary, append(args, r.target(), "sleep 2; true")...)
	if slices.Contains(args, "-N") {
		cmd.Args = cmd.Args[:len(cmd.Args)-1]
	}
	cmd.ExtraFiles = []*os.File{writer}
	caller := r.within(r.T)
	caller.env = append(slices.Clone(r.env), "TOKEN=hush", "SSHPASS=hush")
	term := caller.terminalOf(cmd)
	writer.Close()
	if slices.Contains(args, "-f") {
		term.wantStatus(0)
	}
	r.await("the background process", func() bool {
		for _, p := range processesOf(verb) {
			if !slices.Contains(before, p) && settled(p) {
				pid = p
			}
		}
		return pid != 0
	})
	if _, err := io.ReadAll(reader); err != nil && !slices.Contains(args, "-f") {
		r.Error(err)
	}
	return pid
}

// settled tells whether a background process has let go of its caller: its stdin is the null device.
func settled(pid int) bool {
	to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", pid))
	return to == os.DevNull
}

// processesOf lists the processes of the program under test that run a verb.
func processesOf(verb string) (pids []int) {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range found {
		if exe, _ := os.Readlink(filepath.Join(filepath.Dir(name), "exe")); exe != binary {
			continue // another test's
		}
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte("ssm-ssh\x00"+verb+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// wantOwnSession reads /proc/PID/stat: after the name in parentheses state, parent, group, session, terminal.
func wantOwnSession(t *testing.T, pid int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	own := strconv.Itoa(pid)
	if group, session, terminal := fields[2], fields[3], fields[4]; group != own || session != own || terminal != "0" {
		t.Errorf("process %s: group %s, session %s, terminal %s", own, group, session, terminal)
	}
}

// wantNothingOpen: the null device three times, sockets and the runtime's own, and no pipe or terminal
// that others hold too.
func wantNothingOpen(t *testing.T, pid int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Skipf("descriptors of another process can't be seen here: %v", err)
	}
	for _, e := range entries {
		to, err := os.Readlink(dir + e.Name())
		number, _ := strconv.Atoi(e.Name())
		switch {
		case err != nil: // closed meanwhile
		case number < 3 && to != os.DevNull:
			t.Errorf("descriptor %d is %s", number, to)
		case strings.HasPrefix(to, "/dev/pts/"), strings.HasPrefix(to, "/dev/tty"), heldElsewhere(pid, to):
			t.Errorf("descriptor %d is %s, which others hold", number, to)
		}
	}
}

// heldElsewhere tells whether this process has the same pipe open.
func heldElsewhere(pid int, what string) bool {
	if !strings.HasPrefix(what, "pipe:") {
		return false
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name())
		return to == what
	})
}
