package lab

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// descendants returns the ids of all processes below pid (proc(5): /proc/[pid]/stat).
func descendants(pid int) []int {
	parents := make(map[int]int)
	for _, id := range processes() {
		stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "stat"))
		if err != nil {
			continue
		}
		// The command's name is in brackets and may hold anything; state and parent follow it.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			parents[id] = parent
		}
	}
	return offspring(pid, parents)
}

// marked returns the ids of all processes whose environment has name=value.
func marked(name, value string) []int {
	var found []int
	mark := []byte(name + "=" + value)
	for _, id := range processes() {
		env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(id), "environ"))
		if err != nil {
			continue // another user's, or gone
		}
		for entry := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(entry, mark) {
				found = append(found, id)
				break
			}
		}
	}
	return found
}

func processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var ids []int
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}
