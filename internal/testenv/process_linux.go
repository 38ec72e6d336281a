package testenv

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ProcessorTime returns what a process has taken so far, threads that have ended included, by its own
// clock (Linux: include/linux/posix-timers_types.h, CPUCLOCK_SCHED).
func ProcessorTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	const sched = 2
	var at unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &at); err != nil {
		t.Fatalf("the processor time of %d: %v", pid, err)
	}
	return time.Duration(at.Nano())
}

// Switches returns how often the threads of a process have gone to sleep or were put to it.
func Switches(t testing.TB, pid int) int {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("process %d: %v", pid, err)
	}
	sum := 0
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				n, _ := strconv.Atoi(strings.TrimSpace(value))
				sum += n
			}
		}
	}
	return sum
}

// Memory returns what a process has resident, and its share of it where pages that several processes have
// in common are divided among them, in bytes (Linux: Documentation/filesystems/proc.rst, smaps_rollup).
func Memory(t testing.TB, pid int) (resident, share int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "Rss: %d kB", &resident)
		fmt.Sscanf(line, "Pss: %d kB", &share)
	}
	return resident << 10, share << 10
}
