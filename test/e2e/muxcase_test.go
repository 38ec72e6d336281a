package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// muxCase is a rule of the mux protocol that holds for every pairing of clients and masters.
type muxCase struct {
	name string
	once bool // the client is none of the programs
	long bool // takes longer than a smoke may
	show func(p *pairing)
}

var muxCases = []muxCase{
	{name: "40 HELLO with extensions", once: true, show: func(p *pairing) {
		w := p.dial()
		w.Write(frame(kindHello, uint32(4), "a@b", "1", "", ""))
		w.want(kindHello, 4)
		w.Write(frame(kindAliveCheck, uint32(9)))
		w.want(kindAlive, 9)
	}},
	{name: "40 HELLO of version 3", once: true, show: func(p *pairing) {
		w := p.dial()
		w.Write(frame(kindHello, uint32(3)))
		w.want(kindHello, 4)
		w.wantEnd()
	}},
	{name: "40 second HELLO", once: true, show: func(p *pairing) {
		w := p.dial()
		w.Write(append(frame(kindHello, uint32(4)), frame(kindHello, uint32(4))...))
		w.want(kindHello, 4)
		w.wantEnd()
	}},
	{name: "40 request before HELLO", once: true, show: func(p *pairing) {
		w := p.dial()
		w.Write(frame(kindAliveCheck, uint32(0)))
		w.want(kindHello, 4)
		w.wantEnd()
	}},
	{name: "40 garbage", once: true, show: func(p *pairing) {
		w := p.dial()
		io.WriteString(w, "GET / HTTP/1.1\r\n\r\n")
		w.want(kindHello, 4)
		w.wantEnd()
	}},
	{name: "40 byte by byte", once: true, show: func(p *pairing) {
		w := p.dial()
		for _, b := range append(frame(kindHello, uint32(4)), frame(kindAliveCheck, uint32(5))...) {
			w.Write([]byte{b})
		}
		w.want(kindHello, 4)
		w.want(kindAlive, 5)
	}},
	{name: "40 unknown request", once: true, show: func(p *pairing) {
		w := p.dial()
		w.Write(append(frame(kindHello, uint32(4)), frame(uint32(0x10000042), uint32(7))...))
		w.want(kindHello, 4)
		w.want(kindFailure, 7)
		w.Write(frame(kindAliveCheck, uint32(8)))
		w.want(kindAlive, 8)
	}},
	{name: "41 status and streams", show: func(p *pairing) {
		p.want(p.call("x", "echo out; echo err >&2; exit 7"), 7, "out\n", "err\n")
		p.want(p.call("x", "true"), 0, "", "")
		p.want(p.call("x", "exit 300"), 44, "", "")
		p.want(p.call("x", "kill -9 $$"), 255, "", "")
		cat := p.client("x", "cat; echo EOF")
		cat.Stdin = strings.NewReader("abc")
		p.want(p.run(cat), 0, "abcEOF\n", "")
		shell := p.client("-T", "x")
		shell.Stdin = strings.NewReader("echo shell; exit 3\n")
		if got := p.run(shell); got.status != 3 || !strings.HasSuffix(got.stdout, "shell\n") {
			p.Errorf("shell: %+v", got)
		}
	}},
	{name: "41 environment through the master's SendEnv", show: func(p *pairing) {
		cmd := p.client("-o", "SendEnv=LC_*", "-o", "SetEnv=LC_CASE_B=set", "x", `echo "$LC_CASE_A|$LC_CASE_B|$LC_OTHER|$LC_SET"`)
		cmd.Env = []string{"LC_CASE_A=sent", "LC_OTHER=not"}
		p.want(p.run(cmd), 0, "sent|set||master\n", "")
	}},
	{name: "41 X11 is passed over", show: func(p *pairing) {
		cmd := p.client("-X", "x", "echo display=$DISPLAY; exit 4")
		if p.ourClient {
			p.want(p.run(cmd), 4, "display=\n", "")
			return
		}
		cmd.Env = []string{"DISPLAY=:99"} // without, ssh doesn't ask for it
		p.want(p.run(cmd), 4, "display=\n", "")
	}},
	{name: "41 agent", show: (*pairing).showAgent},
	{name: "41 ControlMaster ask", show: (*pairing).showAsk},
	{name: "42 files", show: (*pairing).showFiles},
	{name: "43 in a row and at once", long: true, show: (*pairing).showMany},
	{name: "44 descriptors", show: (*pairing).showDescriptors},
	{name: "44 nonblocking pipes", show: (*pairing).showNonblocking},
	{name: "44 socketpair for both", show: (*pairing).showSocketPair},
	{name: "44 slow reader stalls nobody", long: true, show: (*pairing).showSlowReader},
	{name: "45 terminal", show: func(p *pairing) {
		term := p.terminalOf(p.client("-t", "x", "stty size; echo $TERM; while read line; do stty size; done; exit 3"))
		term.expect("31 77")
		term.expect("xterm")
		if err := pty.Setsize(term.File, &pty.Winsize{Rows: 40, Cols: 100}); err != nil {
			p.Fatal(err)
		}
		p.await("the size to arrive", func() bool {
			io.WriteString(term, "\r")
			return term.shows("40 100")
		})
		io.WriteString(term, "\x04")
		term.expect("Shared connection to x closed.")
		term.wantStatus(3)
		if term.isRaw() {
			p.Error("the terminal is left in raw mode")
		}
	}},
	{name: "45 forced terminal without one", show: func(p *pairing) {
		p.want(p.call("-tt", "x", "stty size; tty | sed s/[0-9]*$//"), 0, "0 0\n/dev/pts/\n", "Shared connection to x closed.\r\n")
		p.want(p.call("-q", "-tt", "x", "exit 5"), 5, "", "")
	}},
	{name: "45 escapes", show: (*pairing).showEscapes},
	{name: "46 subsystem refused", show: func(p *pairing) {
		got := p.call("-s", "x", "nope")
		if !p.ourMaster { // OpenSSH's loses the line now and then
			got.stderr = "subsystem request failed\r\n"
		}
		p.want(got, 255, "", "subsystem request failed\r\n")
	}},
	{name: "46 pty refused", show: (*pairing).showRefusedPTY},
	{name: "46 MaxSessions", show: (*pairing).showMaxSessions},
	{name: "47 killed client", show: func(p *pairing) {
		cmd := p.prepare(p.client("x", "cat; touch "+p.path("eof"+p.name())+"; exit 1"))
		in, err := cmd.StdinPipe()
		if err != nil {
			p.Fatal(err)
		}
		out := p.lines(cmd)
		io.WriteString(in, "up\n")
		out.want("up\n")
		cmd.Process.Kill()
		cmd.Wait()
		p.await("the command to see the end of its input", func() bool { return exists(p.path("eof" + p.name())) })
		p.want(p.call("x", "exit 9"), 9, "", "")
	}},
	{name: "48 killed master", show: func(p *pairing) {
		path := p.master()
		cmd := p.prepare(p.clientOf(path, "x", "echo up; sleep 60"))
		p.lines(cmd).want("up\n")
		if err := syscall.Kill(p.masterPID(path), syscall.SIGKILL); err != nil {
			p.Fatal(err)
		}
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != 255 {
			p.Errorf("client of a killed master: status %d, want 255", got)
		}
		own := p.direct(p.program(), "echo own")
		p.want(p.sharing(own, path, "no"), 0, "own\n", "Control socket connect("+path+"): Connection refused\r\n")
		own = p.direct(p.program(), "echo own")
		p.want(p.sharing(own, path, "auto"), 0, "own\n", "")
	}},
	{name: "49 verbs", show: (*pairing).showVerbs},
	{name: "50 -O forward", show: (*pairing).showForwardVerbs},
	{name: "51 forwards", show: (*pairing).showForwards},
	{name: "52 stdio forward", show: func(p *pairing) {
		to := "127.0.0.1:" + p.lab.Node(0).SSHPort()
		cmd := p.client("-W", to, "x")
		cmd.Stdin = strings.NewReader("no version\r\n")
		if got := p.run(cmd); got.status != 0 || !strings.HasPrefix(got.stdout, "SSH-2.0-") || got.stderr != "" {
			p.Errorf("-W: %+v", got)
		}
		p.want(p.call("-W", "127.0.0.1:1", "x"), 255, "", "Stdio forwarding request failed: Session open refused by peer\r\n")
	}},
	{name: "53 substitution returns at once", show: (*pairing).showSubstitution},
	{name: "53 persist time", long: true, show: (*pairing).showPersist},
	{name: "54 three at once on a cold path", once: true, show: (*pairing).showThreeAtOnce},
	{name: "54 three at once on a dead master's path", once: true, show: (*pairing).showThreeAtOnceOnStale},
	{name: "55 paths", show: (*pairing).showPaths},
	{name: "56 through a relay", show: (*pairing).showRelay},
	{name: "57 -N", show: (*pairing).showNoCommand},
	{name: "58 proxy mode", show: (*pairing).showProxy},
}

// TestMuxCases: the names begin with the number of the acceptance case.
func TestMuxCases(t *testing.T) {
	eachPairing(t, func(p *pairing) {
		for _, c := range muxCases {
			if c.once && p.ourClient || c.long && testing.Short() {
				continue
			}
			p.Run(c.name, func(t *testing.T) {
				in := *p
				in.rig = p.within(t)
				c.show(&in)
			})
		}
	})
}

// name is different for each pairing, for files.
func (p *pairing) name() string { return strings.NewReplacer("/", "_", " ", "_").Replace(p.Name()) }

// sharing runs a call that may use and become a master at path.
func (p *pairing) sharing(cmd *exec.Cmd, path, how string) result {
	p.Helper()
	cmd.Args = append([]string{cmd.Args[0], "-S", path, "-o", "ControlMaster=" + how}, cmd.Args[1:]...)
	return p.run(cmd)
}

// short is a number in the full test, and in the short one.
func short(full, short int) int {
	if testing.Short() {
		return short
	}
	return full
}

func (p *pairing) showMany() {
	row, most := 200, 50
	if !p.ourMaster {
		most = 8 // of sshd's ten; beyond, only ours has its clients wait
	}
	p.want(p.call("x", "true"), 0, "", "")
	pid := p.masterPID(p.cp)
	before := p.settledFootprint(pid, footprint{})
	for i := range row {
		p.want(p.call("x", fmt.Sprintf("echo %d; exit %d", i, i)), i, fmt.Sprintf("%d\n", i), "")
	}
	var wg sync.WaitGroup
	for i := range most {
		wg.Go(func() { p.want(p.call("x", fmt.Sprintf("echo %d; exit %d", i, i)), i, fmt.Sprintf("%d\n", i), "") })
	}
	wg.Wait()
	if after := p.settledFootprint(pid, before); after.descriptors > before.descriptors {
		p.Errorf("the master has grown from %+v to %+v", before, after)
	}
}

func (p *pairing) showMaxSessions() {
	path := p.master()
	var wg sync.WaitGroup
	var held []io.Closer
	for range 10 { // sshd's limit
		cmd := p.prepare(p.clientOf(path, "x", "echo up; cat"))
		in, err := cmd.StdinPipe()
		if err != nil {
			p.Fatal(err)
		}
		p.lines(cmd).want("up\n")
		held = append(held, in)
		wg.Go(func() { cmd.Wait() })
	}
	own := func(how string) result { return p.sharing(p.direct(p.program(), "echo eleven"), path, how) }
	if p.ourMaster {
		time.AfterFunc(100*time.Millisecond, func() { held[0].Close() }) // one that waits is let in then
		p.want(own("no"), 0, "eleven\n", "")
	} else {
		const refused = "mux_client_request_session: session request failed: Session open refused by peer\r\n"
		p.want(own("no"), 0, "eleven\n", refused)
		p.want(own("auto"), 0, "eleven\n", refused+"ControlSocket "+path+" already exists, disabling multiplexing\r\n")
	}
	for _, in := range held {
		in.Close()
	}
	wg.Wait()
}

func (p *pairing) showVerbs() {
	path := p.master()
	verb := func(args ...string) result { return p.run(p.clientOf(path, append(args, "x")...)) }
	pid := p.masterPID(path)
	p.want(verb("-O", "check"), 0, "", fmt.Sprintf("Master running (pid=%d)\r\n", pid))
	p.want(verb("-O", "forward"), 0, "", "")
	p.want(verb("-O", "cancel"), 0, "", "")
	running := p.prepare(p.clientOf(path, "x", "echo up; read line; exit 6"))
	in, err := running.StdinPipe()
	if err != nil {
		p.Fatal(err)
	}
	p.lines(running).want("up\n")
	p.want(verb("-q", "-O", "stop"), 0, "", "")
	gone := "Control socket connect(" + path + "): No such file or directory\r\n"
	for _, word := range []string{"check", "stop", "exit", "forward", "cancel"} {
		p.want(verb("-O", word), 255, "", gone)
	}
	p.want(p.run(p.clientOf(path, "-O", "proxy", "x", "true")), 255, "", gone)
	io.WriteString(in, "go\n")
	running.Wait()
	if got := running.ProcessState.ExitCode(); got != 6 {
		p.Errorf("a session that ran at -O stop: status %d, want 6", got)
	}
	p.await("the master's end", func() bool { return syscall.Kill(pid, 0) != nil })

	path = p.master()
	pid = p.masterPID(path)
	running = p.prepare(p.clientOf(path, "x", "echo up; sleep 60"))
	p.lines(running).want("up\n")
	p.want(verb("-O", "exit"), 0, "", "Exit request sent.\r\n")
	running.Wait()
	if got := running.ProcessState.ExitCode(); got != 255 {
		p.Errorf("a session that ran at -O exit: status %d, want 255", got)
	}
	p.await("the socket's end", func() bool { return !exists(path) })
	p.await("the master's end", func() bool { return syscall.Kill(pid, 0) != nil })
	p.want(verb("-O", "nonsense"), 255, "", "Invalid multiplex command.\r\n")
	if !p.ourClient {
		return
	}
	// Of ssh 10; a master that doesn't offer it isn't asked.
	p.want(p.call("-O", "conninfo", "x"), 255, "", "mux server does not support info request\r\n")
	p.want(p.call("-O", "channels", "x"), 255, "", "mux server does not support info request\r\n")
}

func (p *pairing) showSubstitution() {
	began := time.Now()
	path := p.fresh()
	script := `echo "$("$@" 'echo sub; echo err >&2' 2>&1 | sort)"` // in which order they come is open
	cmd := p.direct(p.program())
	args := append([]string{"-c", script, "sh", cmd.Args[0], "-S", path, "-o", "ControlMaster=auto", "-o", "ControlPersist=60"}, cmd.Args[1:]...)
	p.want(p.run(exec.Command("sh", args...)), 0, "err\nsub\n", "")
	if took := time.Since(began); took > 30*time.Second {
		p.Errorf("it took %v: the master holds the pipe", took)
	}
	p.want(p.run(p.clientOf(path, "-O", "exit", "x")), 0, "", "Exit request sent.\r\n")
}

func (p *pairing) showPersist() {
	for _, persist := range []string{"yes", "0", "1m30s"} { // stays for now
		path := p.master("-o", "ControlPersist="+persist)
		p.want(p.run(p.clientOf(path, "x", "echo there")), 0, "there\n", "")
	}
	path := p.master("-o", "ControlPersist=3")
	pid := p.masterPID(path)
	began := time.Now()
	p.want(p.run(p.clientOf(path, "x", "sleep 3.5")), 0, "", "") // longer than the time, which begins anew
	p.want(p.run(p.clientOf(path, "-O", "check", "x")), 0, "", fmt.Sprintf("Master running (pid=%d)\r\n", pid))
	p.await("the master's end", func() bool { return !exists(path) && syscall.Kill(pid, 0) != nil })
	if took := time.Since(began); took < 6500*time.Millisecond {
		p.Errorf("the master ended after %v, want 3.5 s and 3 s more", took)
	}
}

func (p *pairing) showNoCommand() {
	cmd := p.prepare(p.client("-N", "x"))
	in, err := cmd.StdinPipe() // a stock client starts a shell, which ends with its input
	if err != nil {
		p.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	p.await("the client to be connected", func() bool { return connected(cmd.Process.Pid) })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
	cmd.Wait()
	in.Close()
	p.want(p.call("x", "echo on"), 0, "on\n", "")
}

// connected tells whether a process holds a socket.
func connected(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if to, _ := os.Readlink(dir + "/" + e.Name()); strings.HasPrefix(to, "socket:") {
			return true
		}
	}
	return false
}
