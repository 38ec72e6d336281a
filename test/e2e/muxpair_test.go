package e2e

import (
	enc "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// pairing is a client and a master of the mux protocol, each of them OpenSSH's or ours. Ours reaches
// the node through an SSM session, OpenSSH's by TCP.
type pairing struct {
	*rig
	ourClient, ourMaster bool
	cp                   string // control path of a master that lives as long as the pairing
}

// masterEnvironment is what the masters of all pairings let through and add.
var masterEnvironment = []string{"-o", "SendEnv=LC_CASE_*", "-o", "SetEnv=LC_SET=master"}

// eachPairing runs a test for OpenSSH with itself, which shows that the test is right, and for the three
// others; in short only where the two are not the same.
func eachPairing(t *testing.T, test func(p *pairing)) {
	testenv.Need(t, "ssh", "sftp", "scp")
	r := newRig(t, lab.Options{})
	r.open()
	r.run(r.direct("ssh", "true")) // for the node's key
	t.Cleanup(func() {
		r.endMasters()
		// The sessions of masters that were killed are ended by whoever comes next; so must be all others by now.
		if got := r.ssh("sessions", "gc"); got.status != 0 || got.stderr != "" {
			t.Errorf("gc: %+v", got)
		}
		r.await("the end of the last record", func() bool { return len(r.records()) == 0 })
	})
	name := map[bool]string{false: "stock", true: "our"}
	for _, p := range []pairing{{}, {ourMaster: true}, {ourClient: true}, {ourClient: true, ourMaster: true}} {
		if testing.Short() && p.ourClient == p.ourMaster {
			continue
		}
		t.Run(name[p.ourClient]+" client on "+name[p.ourMaster]+" master", func(t *testing.T) {
			t.Parallel()
			p.rig = r.within(t)
			p.cp = p.master(masterEnvironment...)
			test(&p)
		})
	}
}

// within is the rig in a subtest.
func (r *rig) within(t *testing.T) *rig {
	sub := *r
	sub.T = t
	return &sub
}

// direct is a call of either program that reaches the node's sshd by TCP, at need.
func (r *rig) direct(program string, args ...string) *exec.Cmd {
	node := []string{"-F", "none", "-i", r.labEnv("SSM_SSH_LAB_KEY"), "-o", "UserKnownHostsFile=" + r.path("known"),
		"-o", "StrictHostKeyChecking=accept-new", "-p", r.lab.Node(0).SSHPort(), r.labEnv("SSM_SSH_LAB_USER") + "@127.0.0.1"}
	return exec.Command(program, append(node, args...)...)
}

// program is the client's.
func (p *pairing) program() string {
	if p.ourClient {
		return binary
	}
	return "ssh"
}

// master starts a master that stays, on a path of its own.
func (p *pairing) master(options ...string) (path string) {
	p.Helper()
	path = p.fresh()
	options = append(slices.Clone(options), "-S", path)
	if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ControlPersist=") }) {
		options = append(options, "-o", "ControlPersist=60")
	}
	options = append(options, "-o", "ControlMaster=auto")
	start := p.direct("ssh", "true")
	if p.ourMaster {
		start = exec.Command(binary, "-F", p.labEnv("SSM_SSH_CONFIG"), p.target(), "true") // without the system's SendEnv
	}
	start.Args = slices.Insert(start.Args, 1, options...)
	if got := p.run(start); got.status != 0 {
		p.Fatalf("starting a master: %+v", got)
	}
	return path
}

var freshPaths atomic.Int64

// fresh is a control path that was not used yet.
func (p *pairing) fresh() string { return p.path(fmt.Sprint("cp", freshPaths.Add(1))) }

// client is the client on the pairing's master; the host x leads nowhere else.
func (p *pairing) client(args ...string) *exec.Cmd { return p.clientOf(p.cp, args...) }

// clientOf is client on another path.
func (p *pairing) clientOf(path string, args ...string) *exec.Cmd {
	return exec.Command(p.program(), append([]string{"-F", "none", "-S", path, "-o", "ControlMaster=no"}, args...)...)
}

// call runs the client on the pairing's master.
func (p *pairing) call(args ...string) result {
	p.Helper()
	return p.run(p.client(args...))
}

// frame is a message of the mux protocol as it goes over the wire: its words are uint32 and string
// (PROTOCOL.mux).
func frame(words ...any) []byte {
	var body []byte
	for _, w := range words {
		switch w := w.(type) {
		case uint32:
			body = enc.BigEndian.AppendUint32(body, w)
		case string:
			body = append(enc.BigEndian.AppendUint32(body, uint32(len(w))), w...)
		default:
			panic("no word of the mux protocol")
		}
	}
	return append(enc.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// Kinds of messages (mux.c).
const (
	kindHello         uint32 = 0x00000001
	kindNewSession    uint32 = 0x10000002
	kindAliveCheck    uint32 = 0x10000004
	kindOpenForward   uint32 = 0x10000006
	kindNewStdio      uint32 = 0x10000008
	kindDenied        uint32 = 0x80000002
	kindFailure       uint32 = 0x80000003
	kindAlive         uint32 = 0x80000005
	kindSessionOpened uint32 = 0x80000006
)

// wire is a control connection without a program behind it.
type wire struct {
	*testing.T
	net.Conn
}

func (p *pairing) dial() *wire {
	p.Helper()
	c, err := net.Dial("unix", p.cp)
	if err != nil {
		p.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(awaitLimit))
	return &wire{p.T, c}
}

// receive returns the next message's words: all of them numbers, but what comes after the third.
func (w *wire) receive() []byte {
	w.Helper()
	body, err := readFrame(w.Conn)
	if err != nil {
		w.Fatal(err)
	}
	return body
}

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, enc.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(r, body)
	return body, err
}

// want wants the next message to begin with numbers.
func (w *wire) want(numbers ...uint32) {
	w.Helper()
	body := w.receive()
	for i, n := range numbers {
		if len(body) < 4*i+4 || enc.BigEndian.Uint32(body[4*i:]) != n {
			w.Fatalf("message %x, want it to begin with %x", body, numbers)
		}
	}
}

// wantEnd wants the peer to hang up.
func (w *wire) wantEnd() {
	w.Helper()
	body, err := readFrame(w.Conn)
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		w.Fatalf("%x, %v; want the end", body, err)
	}
}
