package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"ssm-ssh/internal/awscli"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
)

// understandProxyCommand reads a ProxyCommand that has the AWS CLI start an SSM session, as AWS's guide has it
// for hosts i-* and mi-*: such a session needs no program of others (docs/decisions/014).
func understandProxyCommand(command string) (sshopt.StartSession, error) {
	s, err := awscli.ParseStartSession(command)
	switch {
	case errors.Is(err, awscli.ErrOther):
		return sshopt.StartSession{}, nil
	case err != nil:
		return sshopt.StartSession{}, err
	}
	if node, ok := target.Parse(s.Target); !ok || node.NodeID == "" {
		return sshopt.StartSession{}, fmt.Errorf("the target %q", s.Target)
	}
	return sshopt.StartSession(s), nil
}

// proxyCommandConn is a ProxyCommand's stdin and stdout as a connection. It has no deadlines.
type proxyCommandConn struct {
	io.Reader
	io.WriteCloser
	cmd  *exec.Cmd
	once sync.Once
}

// proxyGrace is how long a ProxyCommand may take to leave after it was told to hang up.
const proxyGrace = 2 * time.Second

// startProxyCommand runs the command as OpenSSH does (ssh_config(5), ProxyCommand): by the user's
// shell, which it replaces, with our stderr.
func startProxyCommand(command string) (net.Conn, error) {
	cmd := exec.Command(userShell(), "-c", "exec "+command)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &proxyCommandConn{Reader: stdout, WriteCloser: stdin, cmd: cmd}, nil
}

// Close hangs up on the command (OpenSSH sends it SIGHUP at the end) and waits for it to leave.
func (c *proxyCommandConn) Close() error {
	c.once.Do(func() {
		c.WriteCloser.Close()
		c.cmd.Process.Signal(syscall.SIGHUP) //nolint:errcheck // it may have left already
		kill := time.AfterFunc(proxyGrace, func() { c.cmd.Process.Kill() })
		defer kill.Stop()
		c.cmd.Wait() //nolint:errcheck // its end is asked for; how it ends doesn't matter
	})
	return nil
}

// proxyAddr is the address of a peer behind a command.
type proxyAddr struct{}

func (proxyAddr) Network() string { return "proxy" }
func (proxyAddr) String() string  { return "UNKNOWN port 65535" } // OpenSSH's words for it

func (c *proxyCommandConn) LocalAddr() net.Addr              { return proxyAddr{} }
func (c *proxyCommandConn) RemoteAddr() net.Addr             { return proxyAddr{} }
func (c *proxyCommandConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *proxyCommandConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *proxyCommandConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
