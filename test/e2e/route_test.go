package e2e

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// route is how a session comes to the node's sshd. OpenSSH's own goes first: it shows that a test is right, and
// what is to be seen.
type route struct {
	*rig
	name  string
	stock bool
	// call is a command line of options, then of a command that may be empty.
	call func(options []string, command ...string) *exec.Cmd
}

// ownWays are the connections of one's own: by TCP, and through an SSM session.
func (r *rig) ownWays() []route {
	direct := func(program string) func([]string, ...string) *exec.Cmd {
		return func(options []string, command ...string) *exec.Cmd {
			cmd := r.direct(program, command...)
			cmd.Args = append(append([]string{program}, options...), cmd.Args[1:]...)
			return cmd
		}
	}
	return []route{
		{r, "stock", true, direct("ssh")},
		{r, "plain host", false, direct(binary)},
		{r, "node", false, r.toNode("-S", "none")},
	}
}

// toNode is a call to the node through an SSM session.
func (r *rig) toNode(first ...string) func([]string, ...string) *exec.Cmd {
	return func(options []string, command ...string) *exec.Cmd {
		args := slices.Concat(first, options, []string{"-F", r.labEnv("SSM_SSH_CONFIG"), r.target()}) // without the system's
		return exec.Command(binary, append(args, command...)...)
	}
}

// allWays are those and the passenger of a master that nobody asked for.
func (r *rig) allWays() []route { return append(r.ownWays(), route{r, "passenger", false, r.toNode()}) }

// eachWay runs a test for some ways to a lab's node.
func eachWay(t *testing.T, ways func(*rig) []route, test func(w route)) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	r.open()
	r.run(r.direct("ssh", "true")) // for the node's key
	for _, w := range ways(r) {
		t.Run(w.name, func(t *testing.T) {
			w.rig = r.within(t)
			test(w)
		})
	}
}

// host is what messages call the other end.
func (w route) host() string {
	if strings.Contains(w.name, "node") || w.name == "passenger" {
		return w.target()
	}
	return "127.0.0.1"
}

// closing is the line that ends a session on a terminal.
func (w route) closing() string {
	if w.name == "passenger" {
		return "Shared connection to " + w.host() + " closed.\r\n"
	}
	return "Connection to " + w.host() + " closed.\r\n"
}

// login starts a session on a terminal and returns when its command has said that it is ready, and the
// process of sshd's that serves it.
func (w route) login(options []string, command string) (term *terminal, sshd int) {
	w.Helper()
	term = w.terminalOf(w.call(append([]string{"-t"}, options...), "stty -echo; echo sshd=$PPID; echo ready; "+command))
	term.expect("ready\r\n")
	if _, err := fmt.Sscanf(term.shown()[strings.Index(term.shown(), "sshd="):], "sshd=%d", &sshd); err != nil {
		w.Fatal(err)
	}
	return term, sshd
}

// freeze stops sshd until the test's end, as if the link were dead.
func (w route) freeze(sshd int) {
	w.Helper()
	if err := syscall.Kill(sshd, syscall.SIGSTOP); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { syscall.Kill(sshd, syscall.SIGCONT) })
}
