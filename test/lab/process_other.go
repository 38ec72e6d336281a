//go:build !linux

package lab

import (
	"os/exec"
	"strconv"
	"strings"
)

// descendants returns the ids of all processes below pid, as ps shows them.
func descendants(pid int) []int {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil
	}
	parents := make(map[int]int)
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		id, err1 := strconv.Atoi(fields[0])
		parent, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			parents[id] = parent
		}
	}
	return offspring(pid, parents)
}

// marked would need other processes' environments, which this system does not show.
func marked(string, string) []int { return nil }
