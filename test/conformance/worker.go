package main

import (
	"io"
	"os"
	"os/exec"
	"syscall"
)

// workerMark in the environment makes this program, or its test, a worker.
const workerMark = "CONFORMANCE_WORKER"

func isWorker() bool { return os.Getenv(workerMark) != "" }

// worker prepares a worker for a command, with no environment but the mark and PATH. The worker
// ends when the command does, with its status, or when its lifeline is closed, with another; in both
// cases after everything that the command has left behind. Wait closes the lifeline, too.
func worker(isolated bool, args ...string) (cmd *exec.Cmd, lifeline io.Closer, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd = exec.Command(self, args...)
	cmd.Env = []string{workerMark + "=1", "PATH=" + os.Getenv("PATH")}
	// A session of its own, so that an interrupt from the terminal doesn't end the one who cleans up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if isolated {
		isolate(cmd)
	}
	lifeline, err = cmd.StdinPipe()
	return cmd, lifeline, err
}

// canIsolate says whether a worker gets a network of its own here.
func canIsolate() bool {
	cmd, _, err := worker(true, "true")
	return err == nil && cmd.Run() == nil
}
