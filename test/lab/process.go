package lab

import (
	"os"
	"syscall"
)

// ownGroup puts a child into a process group of its own, so that the terminal's Ctrl-C reaches it
// through us only.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// signal sends a signal to processes, each by its id.
func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		if pid > 1 && pid != os.Getpid() {
			syscall.Kill(pid, sig) // gone already is as good
		}
	}
}

// offspring returns all ids below root in a table of parents.
func offspring(root int, parents map[int]int) []int {
	var found []int
	for next := []int{root}; len(next) > 0; next = next[1:] {
		for pid, parent := range parents {
			if parent == next[0] {
				found = append(found, pid)
				next = append(next, pid)
			}
		}
	}
	return found
}
