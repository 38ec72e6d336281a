package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ssm-ssh/internal/awscli"
	"ssm-ssh/internal/fdpass"
	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
	"ssm-ssh/sshproxy"
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

// proxyConn is a pair of one-way streams to a proxy as a connection. It has no deadlines.
type proxyConn struct {
	io.Reader
	io.Writer
	hangUp func() // ends calls of both
	once   sync.Once
}

// proxyGrace is how long a ProxyCommand may take to leave after it was told to hang up.
const proxyGrace = 2 * time.Second

// dialProxy reaches the peer through a ProxyCommand, in one of three ways (ssh_config(5), ProxyCommand and
// ProxyUseFdpass; sshconnect.c, ssh_connect).
func dialProxy(ctx context.Context, opts *sshopt.Options, logf report.Logf) (net.Conn, error) {
	command := "exec " + opts.ProxyCommand
	cmd := exec.Command(userShell(), "-c", command)
	// A master's would be held for its life, and a caller that reads stderr to its end would wait for that.
	if opts.ControlPath == "" || !opts.ControlPersist.Set || opts.LogLevel >= sshopt.LogDebug1 {
		cmd.Stderr = os.Stderr
	}
	switch {
	case opts.ProxyCommand == "-":
		return takeStdio()
	case opts.ProxyUseFdpass:
		logf(1, "Executing proxy dialer command: %s", command)
		return receiveProxied(ctx, cmd)
	}
	logf(1, "Executing proxy command: %s", command)
	return startProxyCommand(cmd)
}

// startProxyCommand talks to the peer through the command's stdin and stdout.
func startProxyCommand(cmd *exec.Cmd) (net.Conn, error) {
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
	return &proxyConn{Reader: stdout, Writer: stdin, hangUp: func() {
		stdin.Close()
		cmd.Process.Signal(syscall.SIGHUP) //nolint:errcheck // it may have left already
		waitFor(cmd)
	}}, nil
}

// waitFor waits for a command to leave.
func waitFor(cmd *exec.Cmd) {
	kill := time.AfterFunc(proxyGrace, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait() //nolint:errcheck // its end is asked for; how it ends doesn't matter
}

// errNoProxied has OpenSSH's words for a dialer that ends without a word (monitor_fdpass.c, mm_receive_fd;
// sshconnect.c, ssh_proxy_fdpass_connect).
var errNoProxied = &sshproxy.TextError{
	Text: "mm_receive_fd: recvmsg: expected received 1 got 0\nproxy dialer did not pass back a connection",
}

// receiveProxied has the command make the connection and pass it to us over its stdout. It returns when the
// command has left.
func receiveProxied(ctx context.Context, cmd *exec.Cmd) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	cmd.Stdin, cmd.Stdout = theirs, theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	defer waitFor(cmd)
	defer context.AfterFunc(ctx, func() { ours.Close() })()
	fd, err := fdpass.NewReceiver(ours).NextFD()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, errNoProxied
	}
	file := os.NewFile(uintptr(fd), "proxied connection")
	defer file.Close() // net.FileConn has a copy
	return net.FileConn(file)
}

// socketPair returns two ends of a socket, one as a program is given it.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	file, theirs := os.NewFile(uintptr(fds[0]), "socketpair"), os.NewFile(uintptr(fds[1]), "socketpair")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn.(*net.UnixConn), theirs, nil
}

// takeStdio makes the connection of our own stdin and stdout, where whoever has called us has put it, and
// /dev/null takes their place: what the session reads and writes would go astray among the packets.
func takeStdio() (net.Conn, error) {
	s, err := openStreams(stdio{in: 0, out: 1, err: 2})
	if err != nil {
		return nil, err
	}
	if err := putNull(0); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &proxyConn{Reader: s.in, Writer: s.out, hangUp: func() { s.close() }}, nil
}

// Close hangs up, and waits for a command to leave.
func (c *proxyConn) Close() error {
	c.once.Do(c.hangUp)
	return nil
}

// proxyAddr is the address of a peer behind a proxy.
type proxyAddr struct{}

func (proxyAddr) Network() string { return "proxy" }
func (proxyAddr) String() string  { return "UNKNOWN port 65535" } // OpenSSH's words for it

func (c *proxyConn) LocalAddr() net.Addr              { return proxyAddr{} }
func (c *proxyConn) RemoteAddr() net.Addr             { return proxyAddr{} }
func (c *proxyConn) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (c *proxyConn) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (c *proxyConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
