package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// inProcess is a small SSH server for machines without sshd and for nodes by the hundred, since it is some
// goroutines where sshd is three processes: publickey login, commands and shells by /bin/sh as whoever runs
// the lab, without a pty, and sftp. It is no yardstick for anything but the way to it.
type inProcess struct {
	config *ssh.ServerConfig
	keys   []hostKey
	logf   func(int, string, ...any)

	mu       sync.Mutex
	listen   string
	listener net.Listener
	conns    map[net.Conn]struct{}
	commands map[*os.Process]struct{}
	wg       sync.WaitGroup // acceptor, connections, their channels
}

func newInProcess(keys []hostKey, login ssh.PublicKey, user string, logf func(int, string, ...any)) *inProcess {
	s := &inProcess{keys: keys, logf: logf, conns: make(map[net.Conn]struct{}), commands: make(map[*os.Process]struct{})}
	s.config = &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-ssm-ssh_lab",
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() != user || !bytes.Equal(key.Marshal(), login.Marshal()) {
				return nil, errors.New("unknown user or key")
			}
			return nil, nil
		},
	}
	for _, k := range keys {
		s.config.AddHostKey(k.signer)
	}
	return s
}

func (s *inProcess) port() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listen
}

func (s *inProcess) hostKeys() []string {
	var lines []string
	for _, k := range s.keys {
		lines = append(lines, k.public)
	}
	return lines
}

func (s *inProcess) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		return nil
	}
	port := s.listen
	if port == "" {
		port = "0"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		return err
	}
	if _, s.listen, err = net.SplitHostPort(l.Addr().String()); err != nil {
		l.Close()
		return err
	}
	s.listener = l
	s.wg.Go(func() { s.accept(l) })
	return nil
}

// freeze stops the running commands; the server itself is part of this process.
func (s *inProcess) freeze(on bool) {
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.commands {
		syscall.Kill(-p.Pid, sig)
	}
}

func (s *inProcess) processes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	pids := []int{os.Getpid()}
	for p := range s.commands {
		pids = append(pids, p.Pid)
	}
	return pids
}

func (s *inProcess) stop() error {
	s.mu.Lock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
	for c := range s.conns {
		c.Close()
	}
	for p := range s.commands {
		syscall.Kill(-p.Pid, syscall.SIGKILL)
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

func (s *inProcess) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		alive := s.listener == l
		if alive {
			s.conns[c] = struct{}{}
			s.wg.Go(func() { s.serve(c) })
		}
		s.mu.Unlock()
		if !alive {
			c.Close()
		}
	}
}

func (s *inProcess) serve(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	}()
	conn, channels, requests, err := ssh.NewServerConn(c, s.config)
	if err != nil {
		s.logf(1, "lab: in-process SSH server: %v", err)
		return
	}
	defer conn.Close()
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { ssh.DiscardRequests(requests) })
	for nc := range channels {
		if nc.ChannelType() != "session" {
			nc.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		if ch, reqs, err := nc.Accept(); err == nil {
			parts.Go(func() { s.session(ch, reqs) })
		}
	}
}

// session serves one session channel (RFC 4254, section 6).
func (s *inProcess) session(ch ssh.Channel, reqs <-chan *ssh.Request) {
	defer ch.Close()
	var running sync.WaitGroup
	defer running.Wait()
	env := os.Environ()
	started := false
	for r := range reqs {
		var run func() int
		switch r.Type {
		case "env":
			var kv struct{ Name, Value string }
			if ssh.Unmarshal(r.Payload, &kv) == nil {
				env = append(env, kv.Name+"="+kv.Value)
			}
		case "exec":
			var command struct{ Text string }
			if ssh.Unmarshal(r.Payload, &command) == nil {
				run = func() int { return s.command(ch, env, "/bin/sh", "-c", command.Text) }
			}
		case "shell":
			run = func() int { return s.command(ch, env, "/bin/sh", "-s") }
		case "subsystem":
			var name struct{ Text string }
			if ssh.Unmarshal(r.Payload, &name) == nil && name.Text == "sftp" {
				run = func() int { return serveSFTP(ch) }
			}
		}
		ok := r.Type == "env" || (run != nil && !started)
		if r.WantReply {
			r.Reply(ok, nil)
		}
		if ok && run != nil {
			started = true
			running.Go(func() {
				ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, uint32(run())))
				ch.Close()
			})
		}
	}
}

func (s *inProcess) command(ch ssh.Channel, env []string, name string, args ...string) int {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, ch, ch.Stderr()
	cmd.SysProcAttr = ownGroup()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 255
	}
	s.mu.Lock()
	err = cmd.Start()
	if err == nil {
		s.commands[cmd.Process] = struct{}{}
	}
	s.mu.Unlock()
	if err != nil {
		return 127
	}
	var feed sync.WaitGroup
	feed.Go(func() {
		io.Copy(stdin, ch)
		stdin.Close()
	})
	err = cmd.Wait()
	s.mu.Lock()
	delete(s.commands, cmd.Process)
	s.mu.Unlock()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode() & 0xff
	}
	return 0
}

func serveSFTP(ch ssh.Channel) int {
	server, err := sftp.NewServer(ch)
	if err != nil {
		return 1
	}
	if err := server.Serve(); err != nil && !errors.Is(err, io.EOF) {
		return 1
	}
	return 0
}
