package bench

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	mebibyte = 1 << 20
	// clientLimit and masterLimit are what the program may take; docs/decisions/007 has what it does.
	clientLimit = 14 * mebibyte
	masterLimit = 20 * mebibyte
	// quiet is how long a master is left alone before it counts as idle.
	quiet = time.Second
)

// TestMemory holds the program to its limits, as a release has it: without the race detector.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program a second time")
	}
	r := newRig(t)
	for _, c := range calls {
		var most int64
		for range 10 {
			most = max(most, r.must(r.run(program, c.args(r.ours, r.lab.Targets()[0])...)).memory)
		}
		t.Logf("a client that runs %s: %s", c.name, mib(most))
		if most > clientLimit {
			t.Errorf("a client that runs %s takes %s, limit %s", c.name, mib(most), mib(clientLimit))
		}
	}
	<-time.After(quiet)
	got := r.residentOf(r.masterPID())
	t.Logf("idle master: %s", mib(got))
	if got > masterLimit {
		t.Errorf("an idle master takes %s, limit %s", mib(got), mib(masterLimit))
	}
}

// masterPID asks the program's master who it is.
func (r *rig) masterPID() int {
	r.Helper()
	said := r.must(r.run(program, "-S", r.ours, "-O", "check", r.lab.Targets()[0])).said
	var pid int
	if _, err := fmt.Sscanf(said, "Master running (pid=%d)", &pid); err != nil {
		r.Fatalf("%q: %v", said, err)
	}
	return pid
}

// residentOf returns how much of a process is in memory.
func (r *rig) residentOf(pid int) int64 {
	r.Helper()
	out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		r.Fatal(err)
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		r.Fatal(err)
	}
	return kib << 10
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/mebibyte) }
