package e2e

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssm-ssh/internal/testenv"
)

// showDescriptors has a shell give the client all sorts of descriptors. SSH is the client.
func (p *pairing) showDescriptors() {
	dir := p.path("fd" + p.name())
	if err := os.Mkdir(dir, 0o700); err != nil {
		p.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from a file\n"), 0o600); err != nil {
		p.Fatal(err)
	}
	for _, row := range []struct{ name, script, want string }{
		{"files", `SSH 'cat; echo err >&2' <in >out 2>err; cat out err`, "from a file\nerr\n"},
		{"the same file for all", `SSH 'echo a; sleep 0.1; echo b >&2' <>both >&0 2>&0; cat both`, "a\nb\n"},
		{"null device", `SSH 'cat; echo $?' </dev/null`, "0\n"},
		{"endless input", `SSH 'echo done' </dev/zero`, "done\n"},
		{"no input", `SSH -n cat; echo $?`, "0\n"},
		{"closed input", `SSH 'cat; echo end' <&-`, "end\n"},
		{"closed output", `SSH 'echo lost; echo err >&2; exit 3' 2>&1 >&-; echo $?`, "err\n3\n"},
		{"closed error output", `SSH 'echo out; echo lost >&2; exit 3' 2>&-; echo $?`, "out\n3\n"},
		{"all closed", `SSH 'exit 3' <&- >&- 2>&-; echo $?`, "3\n"},
		{"reader gone", `SSH yes | head -1`, "y\n"},
		{"rest of the input stays", `(SSH 'echo one' </dev/null; cat) <in`, "one\nfrom a file\n"},
		{"substitution", `echo "$(SSH 'echo sub' 2>&1)"`, "sub\n"},
		{"fifo", `mkfifo f; (sleep 0.1; echo late) >f & SSH cat <f; wait`, "late\n"},
		{"output ends before the session", `(SSH 'echo out; exec >&-; read line; exit 4' <in; echo $? >status) | cat; cat status`, "out\n4\n"},
		{"error output after that", `SSH 'exec >&-; sleep 0.1; echo late >&2' 2>&1 </dev/null`, "late\n"},
	} {
		base := p.client()
		script := `SSH() { case $1 in -n) shift; set -- -n x "$@";; *) set -- x "$@";; esac; "$0" ` +
			strings.Join(base.Args[1:], " ") + ` "$@"; }` + "\n" + row.script
		cmd := exec.Command("/bin/sh", "-c", "cd "+dir+"\n"+script, base.Path)
		if got := p.run(cmd); got.stdout != row.want {
			p.Errorf("%s: got %+v, want %q", row.name, got, row.want)
		}
	}
}

// start is the client with three descriptors as they are; os.StartProcess would change their flags.
func (p *pairing) start(fds [3]int, args ...string) *os.Process {
	p.Helper()
	cmd := p.prepare(p.client(args...))
	files := []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])}
	pid, err := syscall.ForkExec(cmd.Path, cmd.Args, &syscall.ProcAttr{Dir: cmd.Dir, Env: cmd.Env, Files: files, Sys: cmd.SysProcAttr})
	if err != nil {
		p.Fatal(err)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		p.Fatal(err)
	}
	return process
}

// showNonblocking: the flag is shared with whoever gave the client its descriptors, and must be as it
// was in the end.
func (p *pairing) showNonblocking() {
	for _, flag := range []int{0, unix.O_NONBLOCK} {
		in, out := p.pipe(flag), p.pipe(flag)
		null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			p.Fatal(err)
		}
		process := p.start([3]int{in[0], out[1], null}, "x", "cat; exit 6")
		data := bytes.Repeat([]byte("through "), 1<<14)
		var wg sync.WaitGroup
		wg.Go(func() { writeAll(in[1], data); unix.Close(in[1]) })
		got := make([]byte, len(data))
		n := readFull(out[0], got)
		wg.Wait()
		state, err := process.Wait()
		if err != nil || state.ExitCode() != 6 || !bytes.Equal(got[:n], data) {
			p.Errorf("flag %#x: %v, %d bytes of %d, %v", flag, state, n, len(data), err)
		}
		for _, fd := range []int{in[0], out[1]} {
			if now, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || now&unix.O_NONBLOCK != flag {
				p.Errorf("flag %#x before, %#x after, %v", flag, now&unix.O_NONBLOCK, err)
			}
		}
	}
}

// pipe returns one with the flag at both ends.
func (p *pairing) pipe(flag int) (fds [2]int) {
	p.Helper()
	return p.pair(func(fds *[2]int) error {
		if err := unix.Pipe(fds[:]); err != nil {
			return err
		}
		nonblocking := flag&unix.O_NONBLOCK != 0
		return errors.Join(unix.SetNonblock(fds[0], nonblocking), unix.SetNonblock(fds[1], nonblocking))
	})
}

// pair makes two descriptors that no other child gets.
func (p *pairing) pair(make func(fds *[2]int) error) (fds [2]int) {
	p.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := make(&fds); err != nil {
		p.Fatal(err)
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return fds
}

// writeAll and readFull work on descriptors of either kind.
func writeAll(fd int, data []byte) {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if !again(fd, unix.POLLOUT, err) {
			return
		}
		data = data[max(n, 0):]
	}
}

func readFull(fd int, to []byte) (n int) {
	for n < len(to) {
		m, err := unix.Read(fd, to[n:])
		if m == 0 || !again(fd, unix.POLLIN, err) {
			return n
		}
		n += max(m, 0)
	}
	return n
}

// again waits where a call would have blocked, and tells whether to go on.
func again(fd int, for_ int16, err error) bool {
	if errors.Is(err, unix.EAGAIN) {
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: for_}}, -1)
		return true
	}
	return err == nil || errors.Is(err, unix.EINTR)
}

// showSocketPair: one end of a socketpair is both stdin and stdout, and each direction ends first once.
func (p *pairing) showSocketPair() {
	for _, row := range []struct {
		name, command string
		say           string
		status        int
		hear          string
	}{
		{"input ends first", "cat; echo end; exit 8", "in\n", 8, "in\nend\n"},
		{"output ends first", "echo out; exec >&-; cat >/dev/null; exit 7", "in\n", 7, "out\n"},
	} {
		fds := p.pair(func(fds *[2]int) (err error) {
			*fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			return err
		})
		null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			p.Fatal(err)
		}
		process := p.start([3]int{fds[1], fds[1], null}, "x", row.command)
		unix.Close(fds[1])
		heard := make([]byte, 100)
		if row.status == 7 {
			// The client has the socket too, so that its end is not to be seen before the client's.
			heard = heard[:readFull(fds[0], heard[:len(row.hear)])]
			writeAll(fds[0], []byte(row.say))
			unix.Shutdown(fds[0], unix.SHUT_WR)
		} else {
			writeAll(fds[0], []byte(row.say))
			unix.Shutdown(fds[0], unix.SHUT_WR)
			heard = heard[:readFull(fds[0], heard)]
		}
		state, err := process.Wait()
		unix.Close(fds[0])
		if err != nil || state.ExitCode() != row.status || string(heard) != row.hear {
			p.Errorf("%s: heard %q, %v, %v", row.name, heard, state, err)
		}
	}
}

// showSlowReader: what isn't read stays on the node, in no channel's way and not in the master.
func (p *pairing) showSlowReader() {
	var slow []*exec.Cmd
	for range 2 {
		cmd := p.prepare(p.client("x", "cat /dev/zero"))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err == nil {
			_, err = io.ReadFull(out, make([]byte, 1))
		}
		if err != nil {
			p.Fatal(err)
		}
		slow = append(slow, cmd)
	}
	for range 3 {
		p.want(p.call("x", "echo quick"), 0, "quick\n", "")
	}
	// For each 2 MiB of window and 96 KiB of buffers, and as much again of what the collector leaves lying.
	if held := footprintOf(p.masterPID(p.cp)).residentKB; p.ourMaster && !testenv.Race && held > 45_000 {
		p.Errorf("the master has grown to %d KiB", held)
	}
	for _, cmd := range slow {
		cmd.Process.Kill()
		cmd.Wait()
	}
	p.want(p.call("x", "echo after"), 0, "after\n", "")
}

// showRelay puts a process between client and master that passes bytes and descriptors on: joined as
// they come out of one recvmsg, and byte by byte. OpenSSH's own master breaks on the first.
func (p *pairing) showRelay() {
	if !p.ourMaster {
		return
	}
	for _, chunk := range []int{64 << 10, 1} {
		path := p.fresh()
		l, err := net.Listen("unix", path)
		if err != nil {
			p.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() { p.relay(c.(*net.UnixConn), chunk) })
			}
		})
		cat := p.clientOf(path, "x", "cat; exit 5")
		cat.Stdin = strings.NewReader("relayed")
		p.want(p.run(cat), 5, "relayed", "")
		l.Close()
		wg.Wait()
	}
}

// relay joins a client to the master.
func (p *pairing) relay(client *net.UnixConn, chunk int) {
	master, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: p.cp, Net: "unix"})
	if err != nil {
		p.Error(err)
		client.Close()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { pass(client, master, chunk) })
	pass(master, client, chunk)
	client.Close()
	master.Close()
	wg.Wait()
}

// pass copies in pieces, descriptors with the byte that carries them.
func pass(from, to *net.UnixConn, chunk int) {
	buf, oob := make([]byte, chunk), make([]byte, 256)
	for {
		<-time.After(time.Millisecond) // more comes in one piece then
		n, m, _, _, err := from.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			to.CloseWrite()
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(oob[:m]); err == nil {
			for _, message := range messages {
				rights, _ := unix.ParseUnixRights(&message)
				fds = append(fds, rights...)
			}
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		to.WriteMsgUnix(buf[:n], rights, nil)
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}
