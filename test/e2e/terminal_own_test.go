package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// readLines shows each line that is typed.
const readLines = `while read line; do echo "<$line>"; done`

// channelDetail is what OpenSSH has on a channel, beside its number and kind (channels.c,
// channel_format_status): its own states and descriptors.
var channelDetail = regexp.MustCompile(`(#\d+ [a-z-]+) \(t4 \[.*\)`)

func TestEscapesOnAnOwnConnection(t *testing.T) {
	var stock string
	eachWay(t, (*rig).ownWays, func(w route) {
		term, _ := w.login(nil, readLines)
		for _, typed := range []string{"~?", "~~tilde\r", "~user\r", "~#", "~C", "~V", "~v", "~v", "~V", "~B", "in ~. mid line\r", "end\r"} {
			io.WriteString(term, typed)
		}
		term.expect("<end>\r\n")
		shown := term.shown()
		shown = channelDetail.ReplaceAllString(shown[strings.Index(shown, "ready"):], "$1")
		if stock == "" {
			stock = shown
		}
		if got, want := escapeTexts(shown), escapeTexts(stock); got != want {
			t.Errorf("shows\n%s\nOpenSSH's\n%s", got, want)
		}
		io.WriteString(term, "~R")
		io.WriteString(term, "still\r")
		term.expect("<still>")
		io.WriteString(term, "~.")
		term.expect("\r\n" + strings.TrimSuffix(w.closing(), "\r\n"))
		term.wantStatus(255)
		if term.isRaw() {
			w.Error("the terminal is left in raw mode")
		}
	})
}

// escapeTexts parts what ssh has said from what the command has, whose order is chance.
func escapeTexts(shown string) string {
	var ours, theirs []string
	for line := range strings.SplitAfterSeq(shown, "\n") {
		if strings.HasPrefix(line, "<") || strings.HasPrefix(line, "ready") {
			theirs = append(theirs, line)
		} else {
			ours = append(ours, line)
		}
	}
	return fmt.Sprintf("%q", append(ours, theirs...))
}

func TestEscapesNeedATerminal(t *testing.T) {
	eachWay(t, (*rig).allWays, func(w route) {
		bare := w.call([]string{"-T", "-e", "~"}, "cat")
		bare.Stdin = strings.NewReader("~.\n~?\n")
		w.want(w.run(bare), 0, "~.\n~?\n", "")
		none := w.terminalOf(w.call([]string{"-t", "-e", "none"}, `stty -echo; echo ready; read line; echo "<$line>"`))
		none.expect("ready")
		io.WriteString(none, "~.\r")
		none.expect("<~.>")
		none.wantStatus(0)
	})
}

// A link that has died is ended by ~. and by signals at once, and the terminal is as it was.
func TestDeadLink(t *testing.T) {
	for name, end := range map[string]func(term *terminal){
		"escape":  func(term *terminal) { io.WriteString(term, "\r~.") },
		"SIGTERM": func(term *terminal) { term.cmd.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, (*rig).allWays, func(w route) {
				term, sshd := w.login(nil, "cat >/dev/null")
				w.freeze(sshd)
				io.WriteString(term, strings.Repeat("typed into the void\r", 50))
				began := time.Now()
				end(term)
				term.wantStatus(255)
				if took := time.Since(began); took > 5*time.Second {
					w.Errorf("it took %v", took)
				}
				if term.isRaw() {
					w.Error("the terminal is left in raw mode")
				}
				syscall.Kill(sshd, syscall.SIGCONT)
			})
		})
	}
}

// However a session ends, its terminal is as it was.
func TestTerminalIsRestored(t *testing.T) {
	signal := func(s syscall.Signal) func(*terminal, int) {
		return func(term *terminal, _ int) { term.cmd.Process.Signal(s) }
	}
	endings := []struct {
		name   string
		end    func(term *terminal, sshd int)
		status int
	}{
		{"exit", func(term *terminal, _ int) { io.WriteString(term, "\x04") }, 0},
		{"SIGTERM", signal(syscall.SIGTERM), 255},
		{"SIGHUP", signal(syscall.SIGHUP), 255},
		{"SIGINT", signal(syscall.SIGINT), 255},
		{"SIGQUIT", signal(syscall.SIGQUIT), 255},
		{"killed server", func(_ *terminal, sshd int) { syscall.Kill(sshd, syscall.SIGKILL) }, 255},
	}
	said := make(map[string]string)
	eachWay(t, (*rig).allWays, func(w route) {
		for _, e := range endings {
			term, sshd := w.login(nil, "cat")
			if !term.isRaw() {
				w.Errorf("%s: the terminal isn't raw before", e.name)
			}
			mark := term.mark()
			e.end(term, sshd)
			term.wantStatus(e.status)
			<-term.done
			if term.isRaw() {
				w.Errorf("%s: the terminal is left in raw mode", e.name)
			}
			last := strings.ReplaceAll(mark.shown(), w.host(), "HOST")
			if w.stock {
				said[e.name] = last
			} else if want := said[e.name]; w.name == "plain host" && last != want {
				w.Errorf("%s: shows %q, OpenSSH %q", e.name, last, want)
			}
			w.Logf("%s: %q", e.name, last)
		}
	})
}

// TestJobControl stops a session and continues it, in a shell as a user has it.
func TestJobControl(t *testing.T) {
	testenv.Need(t, "bash")
	eachWay(t, (*rig).ownWays, func(w route) {
		shell := exec.Command("bash", "--norc", "--noprofile", "--noediting", "-i")
		shell.Env = []string{"PS1=prompt> ", "HISTFILE="}
		term := w.terminalOf(shell)
		term.expect("prompt> ")
		call := w.call([]string{"-t"}, "stty -echo; echo pid=$PPID ready; while read line; do echo size=$(stty size); done")
		io.WriteString(term, quoted(call.Args)+"\n")
		term.expect(" ready\r\n")
		if !term.isRaw() {
			w.Error("the terminal isn't raw")
		}
		stops := []func(){func() { io.WriteString(term, "~\x1a") }}
		if !w.stock { // which leaves the terminal as it is then, to what the shell makes of it
			pid := w.childOf(shell.Process.Pid)
			stops = append(stops,
				func() { syscall.Kill(pid, syscall.SIGTSTP) },
				func() { syscall.Kill(pid, syscall.SIGSTOP) })
		}
		for i, stop := range stops {
			mark := term.mark()
			stop()
			mark.expect("Stopped")
			mark.expect("prompt> ")
			w.await("a cooked terminal", func() bool { return !term.isRaw() })
			size := pty.Winsize{Rows: uint16(40 + i), Cols: uint16(90 + i)}
			if err := pty.Setsize(term.File, &size); err != nil {
				w.Fatal(err)
			}
			mark = term.mark()
			io.WriteString(term, "echo at the $((1))st shell; fg\n")
			mark.expect("at the 1st shell")
			w.await("a raw terminal", func() bool { return term.isRaw() })
			w.await("the new size at the node", func() bool {
				step := term.mark()
				io.WriteString(term, "again\r")
				step.expect("size=")
				step.expect("\r\n") // all is read: nothing is left to the shell
				return step.shows(fmt.Sprintf("size=%d %d\r\n", size.Rows, size.Cols))
			})
		}
		mark := term.mark()
		io.WriteString(term, "\r\x04")
		mark.expect("prompt> ")
		mark = term.mark()
		io.WriteString(term, "echo status=$?; exit\n")
		mark.expect("status=0")
		term.wantStatus(0)
	})
}

// quoted is a command line for a shell.
func quoted(args []string) string {
	var b strings.Builder
	for _, a := range args {
		b.WriteString("'" + strings.ReplaceAll(a, "'", `'\''`) + "' ")
	}
	return b.String()
}

// childOf returns the one child of a process.
func (r *rig) childOf(pid int) (child int) {
	r.Helper()
	r.await("the shell's child", func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
		if err != nil {
			r.Skipf("children can't be listed here: %v", err)
		}
		n, _ := fmt.Sscan(string(data), &child)
		return n == 1
	})
	return child
}

// TestCommandLineEscape types forwards at ~C.
func TestCommandLineEscape(t *testing.T) {
	var stock string
	eachWay(t, (*rig).ownWays, func(w route) {
		term, _ := w.login([]string{"-o", "EnableEscapeCommandline=yes", "-o", "PermitLocalCommand=yes"}, readLines)
		port, inner := freePort(t), w.lab.Node(0).SSHPort()
		mark := term.mark()
		for _, row := range []struct{ typed, shown string }{
			{"help", "!args"}, {"X", "Invalid command."}, {"", ""}, {"!echo local$((1+1)) >&2", "local2"},
			{"-L bad", "Bad local forwarding specification."}, {"-R", "Bad remote forwarding specification."},
			{"-KL x:y:z", "Bad forwarding close specification."}, {"-KL1", "Unknown port forwarding."},
			{fmt.Sprintf("-L%d:127.0.0.1:%s", port, inner), "Forwarding port."},
			{"\x03", ""}, // takes back the question
			{fmt.Sprintf("-KL%d", port), "Canceled forwarding."},
			{fmt.Sprintf("-D %d", port), "Forwarding port."},
			{fmt.Sprintf("-KD %d", port), "Canceled forwarding."},
			{fmt.Sprintf("-R %d:127.0.0.1:1", port), "Forwarding port."},
			{fmt.Sprintf("-KR %d", port), "Canceled forwarding."},
		} {
			step := term.mark()
			io.WriteString(term, "~C")
			step.expect("ssh> ")
			if term.isRaw() {
				w.Error("the terminal is raw while it asks")
			}
			if row.typed != "\x03" {
				row.typed += "\n"
			}
			io.WriteString(term, row.typed)
			step.expect(row.shown)
			w.await("a raw terminal", term.isRaw)
		}
		if w.stock {
			stock = strings.ReplaceAll(mark.shown(), fmt.Sprint(port), "PORT")
		} else if got := strings.ReplaceAll(mark.shown(), fmt.Sprint(port), "PORT"); got != stock {
			t.Errorf("shows %q\nOpenSSH's %q", got, stock)
		}
		io.WriteString(term, "on\r")
		term.expect("<on>")
		io.WriteString(term, "\r~.")
		term.wantStatus(255)
	})
}

// An editor on the node: full screen, other alphabets, a new size while it runs.
func TestEditor(t *testing.T) {
	testenv.Need(t, "vi")
	eachWay(t, (*rig).allWays, func(w route) {
		file := filepath.Join(w.sharedDir(), "text")
		term := w.terminalOf(w.call([]string{"-t"}, "LC_ALL=C.UTF-8 vi -u NONE -N "+file))
		term.expect("~")
		io.WriteString(term, "iZwölf Boxkämpfer — 日本語 🙂\x1b")
		term.expect("日本語 🙂")
		if err := pty.Setsize(term.File, &pty.Winsize{Rows: 44, Cols: 111}); err != nil {
			t.Fatal(err)
		}
		w.await("the new size in the editor", func() bool {
			io.WriteString(term, ":set lines? columns?\r")
			return term.shows("lines=44") && term.shows("columns=111")
		})
		io.WriteString(term, ":wq\r")
		term.expect(strings.TrimSuffix(w.closing(), "\r\n"))
		term.wantStatus(0)
		if text, err := os.ReadFile(file); string(text) != "Zwölf Boxkämpfer — 日本語 🙂\n" || err != nil {
			t.Errorf("the file holds %q, %v", text, err)
		}
	})
}

// sharedDir is a folder that the node's user may write, whoever that is.
func (r *rig) sharedDir() string {
	dir, err := os.MkdirTemp(r.dir, "open")
	if err == nil {
		err = os.Chmod(dir, 0o777)
	}
	if err != nil {
		r.Fatal(err)
	}
	return dir
}

// TestPaste types a megabyte at once, and has it shown.
func TestPaste(t *testing.T) {
	size := short(1<<20, 128<<10)
	data := make([]byte, size*3/4)
	rand.Read(data)
	text := base64.StdEncoding.EncodeToString(data)
	eachWay(t, (*rig).allWays, func(w route) {
		dir := w.sharedDir()
		os.WriteFile(dir+"/down", []byte(text), 0o644)
		term := w.terminalOf(w.call([]string{"-t"}, fmt.Sprintf("stty raw -echo; echo ready; head -c %d >%[2]s/up; echo got; cat %[2]s/down; exit 5", len(text), dir)))
		term.expect("ready")
		io.WriteString(term, text)
		term.expect("got")
		term.wantStatus(5)
		<-term.done
		if up, err := os.ReadFile(dir + "/up"); string(up) != text || err != nil {
			t.Errorf("%d bytes of %d have come to the node, or others; %v", len(up), len(text), err)
		}
		if !strings.HasSuffix(term.shown(), text+w.closing()) && !strings.HasSuffix(term.shown(), text+strings.TrimSuffix(w.closing(), "\r\n")+"\r\r\n") {
			t.Errorf("%d bytes were shown: not all of %d, or others", len(term.shown()), len(text))
		}
	})
}

// TestTmux logs in where many do: in tmux, which has a terminal of its own.
func TestTmux(t *testing.T) {
	testenv.Need(t, "tmux")
	r := newRig(t, lab.Options{})
	socket := r.path("tmux")
	tmux := func(args ...string) string {
		got := r.run(exec.Command("tmux", append([]string{"-f", "/dev/null", "-S", socket}, args...)...))
		if got.status != 0 {
			r.Fatalf("tmux %q: %+v", args, got)
		}
		return got.stdout
	}
	tmux("new-session", "-d", "-x", "90", "-y", "25", "bash --norc --noprofile")
	defer tmux("kill-server")
	screen := func(text string) {
		t.Helper()
		r.await(text, func() bool { return strings.Contains(tmux("capture-pane", "-p"), text) })
	}
	tmux("send-keys", binary+" -S none "+r.target(), "Enter")
	tmux("send-keys", "echo at $((1))st; stty size", "Enter")
	screen("at 1st")
	screen("25 90")
	tmux("resize-window", "-x", "70", "-y", "20")
	r.await("the new size", func() bool {
		tmux("send-keys", "clear; stty size", "Enter")
		return strings.Contains(tmux("capture-pane", "-p"), "20 70")
	})
	tmux("send-keys", "clear; echo \"ä$((2))ö\"", "Enter")
	screen("ä2ö")
	tmux("send-keys", "~.")
	screen("Connection to " + r.target() + " closed.")
	tmux("send-keys", "echo back $((3))", "Enter") // echoed and gathered to a line, or this fails
	screen("back 3")
}
