package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"ssm-ssh/ssmchannel/agentmsg"
)

// Documents of sessions that run a command or a shell. The last two are the lab's own: AWS's document
// for non-interactive commands keeps the output streams together, and those of shells take no port.
const (
	runShell           = "SSM-SessionManagerRunShell" // also meant by no document at all
	interactiveCommand = "AWS-StartInteractiveCommand"
	nonInteractive     = "AWS-StartNonInteractiveCommand"
	separateOutput     = "Lab-StartSeparateOutputCommand"
	ownShell           = "Lab-StartShellDespitePort"
)

// kind returns the session type of the document.
func (s *session) kind() string {
	switch s.document {
	case "", runShell, ownShell:
		return agentmsg.StandardStreamSession
	case interactiveCommand:
		return agentmsg.InteractiveSession
	case nonInteractive, separateOutput:
		return agentmsg.NonInteractiveSession
	}
	return agentmsg.PortSession
}

// needsHandshake says whether the agent opens with a handshake (session/plugins: RequireHandshake).
func (w *worker) needsHandshake() bool {
	kind := w.session.kind()
	return kind == agentmsg.PortSession || kind == agentmsg.NonInteractiveSession || w.encrypts()
}

// A command is the session code of everything but ports (session/shell/shell_unix.go): a shell or one
// command, on a pty or without.
type command struct {
	worker *worker
	cmd    *exec.Cmd
	pty    *os.File // nil without one
}

// serveCommand returns nil when the command has ended.
func (w *worker) serveCommand() error {
	c := &command{worker: w, cmd: exec.Command("/bin/sh")}
	if w.session.kind() != agentmsg.StandardStreamSession {
		c.cmd.Args = append(c.cmd.Args, "-c", w.session.params["command"])
	}
	if err := w.asLogin(c.cmd); err != nil {
		return err
	}
	var copyOut func()
	var err error
	if w.session.kind() == agentmsg.NonInteractiveSession {
		copyOut, err = c.startPiped()
	} else {
		copyOut, err = c.startOnPTY()
	}
	if err != nil {
		return agentText("Unable to start command: " + err.Error())
	}
	w.setHandler(c)
	ended := make(chan struct{})
	w.parts.Go(func() {
		defer close(ended)
		copyOut()
	})
	select {
	case <-ended:
		return nil
	case <-w.cancel:
		err = errCancelled
	case <-w.ctx.Done():
		err = context.Cause(w.ctx)
	}
	c.kill()
	<-ended
	return err
}

// sessionMark is the variable by which the processes of a session are known.
const sessionMark = "SSM_SSH_LAB_SESSION"

// kill ends the command and all that it has started: a lab leaves nothing behind.
func (c *command) kill() {
	pid := c.cmd.Process.Pid
	left := append(descendants(pid), marked(sessionMark, c.worker.session.id)...)
	unix.Kill(-pid, unix.SIGKILL)
	signal(left, unix.SIGKILL)
	if c.pty != nil {
		c.pty.Close() // SIGHUP to whatever else is on it
	}
}

// asLogin makes a command run as the nodes' login user, in the environment that the agent gives it.
func (w *worker) asLogin(cmd *exec.Cmd) error {
	login, err := user.Lookup(w.lab.user)
	if err != nil {
		return err
	}
	cmd.Env = []string{"TERM=xterm-256color", "LANG=C.UTF-8", "HOME=" + login.HomeDir, "USER=" + login.Username,
		"LOGNAME=" + login.Username, "SHELL=/bin/sh", sessionMark + "=" + w.session.id, "PATH=" + os.Getenv("PATH"), "PS1=$ "}
	if info, err := os.Stat(login.HomeDir); err == nil && info.IsDir() {
		cmd.Dir = login.HomeDir
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	uid, uidErr := strconv.ParseUint(login.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(login.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return err
	}
	if os.Geteuid() == 0 && uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return nil
}

// startOnPTY starts the command on a pty of its own. The function that it returns carries the
// output until its end.
func (c *command) startOnPTY() (copyOut func(), err error) {
	master, slave, err := openPTY()
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	if cred := c.cmd.SysProcAttr.Credential; cred != nil {
		if err := slave.Chown(int(cred.Uid), int(cred.Gid)); err != nil {
			master.Close()
			return nil, err
		}
	}
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = slave, slave, slave
	c.cmd.SysProcAttr.Setsid, c.cmd.SysProcAttr.Setctty = true, true
	if err := c.cmd.Start(); err != nil {
		master.Close()
		return nil, err
	}
	c.pty = master
	return func() {
		defer master.Close()
		defer c.cmd.Wait()
		c.copyText(agentmsg.Output, master)
	}, nil
}

// startPiped starts the command without pty and without input.
func (c *command) startPiped() (copyOut func(), err error) {
	separate := c.worker.session.document == separateOutput
	c.cmd.SysProcAttr.Setpgid = true
	outReader, outWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer outWriter.Close()
	c.cmd.Stdout, c.cmd.Stderr = outWriter, outWriter
	var errReader *os.File
	if separate {
		var errWriter *os.File
		if errReader, errWriter, err = os.Pipe(); err != nil {
			outReader.Close()
			return nil, err
		}
		defer errWriter.Close()
		c.cmd.Stderr = errWriter
	}
	if err := c.cmd.Start(); err != nil {
		outReader.Close()
		errReader.Close() // nil is fine
		return nil, err
	}
	return func() { c.copyPipes(outReader, errReader) }, nil
}

// copyPipes carries the output until its end, then the exit code where the streams are separate.
func (c *command) copyPipes(out, errs *os.File) {
	var copies sync.WaitGroup
	defer copies.Wait()
	if errs == nil {
		c.copyText(agentmsg.Output, out)
		out.Close()
		c.cmd.Wait()
		return
	}
	copies.Go(func() {
		c.copyText(agentmsg.StdErr, errs)
		errs.Close()
	})
	c.copyText(agentmsg.Output, out)
	out.Close()
	copies.Wait()
	err := c.cmd.Wait()
	if status, statusErr := exitStatus(err); statusErr == nil {
		c.worker.sendOutput(agentmsg.ExitCode, agentmsg.AppendExitCode(nil, status))
	}
}

// copyText carries text as the agent does (session/shell/shell.go: writePump): after a second, at most
// 1024 bytes at a time, cut between characters, a millisecond apart, nothing while publication is
// paused.
func (c *command) copyText(payloadType agentmsg.PayloadType, from io.Reader) {
	w := c.worker
	if !w.pause(w.lab.opts.Timing.ShellStart) {
		return
	}
	buf := make([]byte, payloadBytes)
	var whole, held []byte
	for w.out.awaitResumed(w.ctx) {
		n, err := from.Read(buf)
		whole, held = cutCharacters(append(held, buf[:n]...))
		w.sendOutput(payloadType, whole)
		if err != nil || !w.pause(pace) {
			return // a pty without users is EIO; what is held is lost
		}
	}
}

// cutCharacters splits text before a character that may be incomplete, which waits for more. It is
// as unfaithful as the agent (shell.go: processStdoutData): of a genuine U+FFFD it passes the first
// byte only, and up to three bytes that are no UTF-8 wait at the end.
func cutCharacters(text []byte) (whole, rest []byte) {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r != utf8.RuneError:
			whole = append(whole, text[:n]...)
		case len(text) < utf8.UTFMax:
			return whole, bytes.Clone(text)
		default:
			whole = append(whole, text[0])
		}
		text = text[n:]
	}
	return whole, nil
}

// input feeds the command. There is no flag among the types: the shell's plugins know none.
func (c *command) input(payloadType agentmsg.PayloadType, payload []byte) error {
	switch {
	case c.pty == nil:
		if payloadType == agentmsg.Output {
			c.signal(payload)
		}
	case payloadType == agentmsg.Output:
		_, err := c.pty.Write(payload)
		return err
	case payloadType == agentmsg.Size:
		size, err := agentmsg.ParseTerminalSize(payload)
		if err != nil {
			return err
		}
		return c.resize(size)
	}
	return nil
}

// signal looks for control characters, which are all that a command without pty takes
// (shell_unix.go: InputStreamMessageHandler).
func (c *command) signal(payload []byte) {
	for control, sig := range map[byte]syscall.Signal{0x03: unix.SIGINT, 0x1c: unix.SIGQUIT} {
		if bytes.IndexByte(payload, control) >= 0 {
			syscall.Kill(-c.cmd.Process.Pid, sig)
		}
	}
}

func (c *command) resize(size agentmsg.TerminalSize) error {
	return onFD(c.pty, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(size.Rows), Col: uint16(size.Cols)})
	})
}

// onFD calls f with a file's descriptor without changing its mode.
func onFD(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	if inner != nil {
		return fmt.Errorf("%s: %w", file.Name(), inner)
	}
	return nil
}

// shellStart is how long the agent waits before it reads output (shell.go: writePump).
const shellStart = time.Second
