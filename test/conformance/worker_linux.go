package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// isolate gives a process a network of its own, which takes root's rights.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET
}

// work is a worker's life. It returns its status.
func work(args []string) int {
	os.Unsetenv(workerMark)
	status, err := supervise(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		return 1
	}
	return status
}

// supervise runs a command until it ends or stdin does, and then ends all of its descendants. It
// returns the command's status.
func supervise(args []string) (status int, err error) {
	if err := raiseLoopback(); err != nil {
		return 0, err
	}
	// From now on what loses its parent becomes our child (prctl(2), PR_SET_CHILD_SUBREAPER).
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("adopting orphans: %w", err)
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	command, err := os.StartProcess(path, args, &os.ProcAttr{Files: []*os.File{null, os.Stdout, os.Stderr}})
	if err != nil {
		return 0, err
	}
	go func() { // until the process ends
		io.Copy(io.Discard, os.Stdin)
		command.Kill()
	}()
	status, err = reapUntil(command.Pid)
	return status, errors.Join(err, endChildren())
}

// raiseLoopback brings lo up, which in a new network is down; where it is up nothing happens.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if lo.Uint16()&unix.IFF_UP != 0 {
		return nil
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	return nil
}

// reapUntil collects children, orphans among them, until one has ended. It returns that one's status,
// 128 and the number where a signal ended it, as a shell does.
func reapUntil(pid int) (status int, err error) {
	for {
		var how unix.WaitStatus
		switch ended, err := unix.Wait4(-1, &how, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case ended != pid:
		case how.Signaled():
			return 128 + int(how.Signal()), nil
		default:
			return how.ExitStatus(), nil
		}
	}
}

// endChildren kills the children, then what becomes a child by that, until there are none.
func endChildren() error {
	for {
		children, err := childrenOf(os.Getpid())
		if err != nil {
			return err
		}
		for _, pid := range children {
			unix.Kill(pid, unix.SIGKILL) // nobody else collects it: the number is still its own
		}
		switch _, err := unix.Wait4(-1, nil, 0, nil); {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// childrenOf finds the children of a process, as kernels without CONFIG_PROC_CHILDREN have to.
func childrenOf(parent int) (pids []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (comm) state ppid …, where comm may hold anything (proc(5)).
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, err
}
