package e2e

import (
	enc "encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// fakeMaster is a control socket with a script behind it instead of a master.
func (r *rig) fakeMaster(path string, talk func(w *wire)) {
	r.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		r.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(awaitLimit))
				talk(&wire{r.T, c})
			})
		}
	})
	r.Cleanup(func() { l.Close(); wg.Wait() })
}

// answering says HELLO, takes the client's, and answers a request with the reply for its kind; without
// one it hangs up.
func answering(replies map[uint32]func(id uint32) []byte) func(w *wire) {
	return func(w *wire) {
		w.Write(frame(kindHello, uint32(4)))
		_, err := readFrame(w)
		for err == nil {
			var kind, id uint32
			if kind, id, err = readRequest(w); err != nil || replies[kind] == nil {
				return
			}
			answer := replies[kind](id)
			if w.Write(answer); enc.BigEndian.Uint32(answer[4:]) == kindSessionOpened {
				return // what follows is the end
			}
		}
	}
}

// readRequest reads a request with the bytes of its descriptors, which are dropped.
func readRequest(w *wire) (kind, id uint32, err error) {
	body, err := readFrame(w)
	if err != nil || len(body) < 8 {
		return 0, 0, err
	}
	kind, id = enc.BigEndian.Uint32(body), enc.BigEndian.Uint32(body[4:])
	_, err = io.ReadFull(w, make([]byte, map[uint32]int{kindNewSession: 3, kindNewStdio: 2}[kind]))
	return kind, id, err
}

type replies = map[uint32]func(id uint32) []byte

func alive(id uint32) []byte  { return frame(kindAlive, id, uint32(1)) }
func opened(id uint32) []byte { return frame(kindSessionOpened, id, uint32(2)) }
func failed(id uint32) []byte { return frame(kindFailure, id, "no such luck") }
func denied(id uint32) []byte { return frame(kindDenied, id, "Permission denied") }

// fallbacks are what a client does when a master is of no use to it (mux.c, muxclient), and what it says
// before it goes on by itself. PATH stands for the control path.
var fallbacks = []struct {
	name   string
	talk   func(w *wire)
	args   []string
	says   string // of ControlMaster no; auto then finds the path taken
	status int    // 0: it has run the command by itself
}{
	{name: "hangs up", talk: func(*wire) {}, says: "muxclient: master hello exchange failed\r\n"},
	{name: "keeps silent", talk: func(w *wire) {
		w.SetDeadline(time.Now().Add(3 * time.Second)) // ssh 9.2 would wait for ever
		readFrame(w)
		readFrame(w)
	}, says: "muxclient: master hello exchange failed\r\n"},
	{name: "speaks version 3", talk: func(w *wire) { w.Write(frame(kindHello, uint32(3))); readFrame(w); readFrame(w) },
		says: "Unsupported multiplexing protocol version 3 (expected 4)\r\nmuxclient: master hello exchange failed\r\n"},
	{name: "begins with something else", talk: func(w *wire) { w.Write(frame(kindAlive, uint32(0), uint32(0))); readFrame(w); readFrame(w) },
		says: "mux_client_hello_exchange: expected HELLO (1) got 2147483653\r\nmuxclient: master hello exchange failed\r\n"},
	{name: "leaves alive unanswered", talk: answering(nil), says: "mux_client_request_session: master alive request failed\r\n"},
	{name: "refuses the session", talk: answering(replies{kindAliveCheck: alive, kindNewSession: failed}), says: "mux_client_request_session: session request failed: no such luck\r\n"},
	{name: "denies the session", talk: answering(replies{kindAliveCheck: alive, kindNewSession: denied}), says: "Master refused session request: Permission denied\r\n"},
	{name: "hangs up on the session", talk: answering(replies{kindAliveCheck: alive}), says: "mux_client_request_session: read from master failed: Broken pipe\r\n"},
	{name: "hangs up in the session", talk: answering(replies{kindAliveCheck: alive, kindNewSession: opened}), status: 255},
	{name: "refuses a forward", args: []string{"-R", "1:x:1"}, talk: answering(replies{kindAliveCheck: alive, kindOpenForward: failed}),
		says: "mux_client_forward: forwarding request failed: no such luck\r\nmuxclient: master forward request failed\r\n"},
	{name: "refuses a stdio forward", args: []string{"-W", "x:1"}, talk: answering(replies{kindAliveCheck: alive, kindNewStdio: failed}),
		says: "Stdio forwarding request failed: no such luck\r\n", status: 255},
}

// TestMuxFallback has both programs meet the same masters: what OpenSSH's does is what ours has to do.
func TestMuxFallback(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	r.run(r.direct("ssh", "true")) // for the node's key
	for _, program := range []string{"ssh", binary} {
		for _, how := range []string{"no", "auto"} {
			name := map[bool]string{true: "ssh-", false: "ours-"}[program == "ssh"] + how
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := &pairing{rig: r.within(t), ourClient: program == binary}
				p.meetFakes(program, how)
				p.meetNobody(program, how)
			})
		}
	}
}

func (p *pairing) meetFakes(program, how string) {
	for _, f := range fallbacks {
		p.Run(f.name, func(t *testing.T) {
			r := p.within(t)
			path := p.fresh()
			r.fakeMaster(path, f.talk)
			cmd := r.direct(program, "echo own")
			cmd.Args = append(append([]string{cmd.Args[0], "-o", "ConnectTimeout=1"}, f.args...), cmd.Args[1:]...)
			out, says := "own\n", f.says
			switch {
			case f.status != 0:
				out = ""
			case how == "auto":
				says += "ControlSocket " + path + " already exists, disabling multiplexing\r\n"
			}
			got := (&pairing{rig: r}).sharing(cmd, path, how)
			// A remote forward that the node refuses as well is not what this is about.
			got.stderr = strings.ReplaceAll(got.stderr, "Warning: remote port forwarding failed for listen port 1\r\n", "")
			r.want(got, f.status, out, says)
		})
	}
}

// meetNobody is a path without a socket, and one whose master is dead.
func (p *pairing) meetNobody(program, how string) {
	path := p.fresh()
	p.want(p.sharing(p.direct(program, "echo own"), path, how), 0, "own\n", "")
	stale := p.fresh()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: stale})
		syscall.Close(fd)
	}
	if err != nil {
		p.Fatal(err)
	}
	says := ""
	if how == "no" {
		says = "Control socket connect(" + stale + "): Connection refused\r\n"
	}
	p.want(p.sharing(p.direct(program, "echo own"), stale, how), 0, "own\n", says)
	if exists(stale) != (how == "no") {
		p.Errorf("a dead master's socket is left: %v", exists(stale))
	}
}
