package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
)

const (
	// idleTime is how long nobody does anything, and idleSample how finely that is watched.
	idleTime   = time.Minute
	idleSample = 250 * time.Millisecond
	// idleGoal is a websocket ping every 15 s (ssmchannel, defaultPingInterval), and its answer.
	idleGoal = "<= 8, the keepalives"
	// rest is how long after its last client a master has returned memory (cmd/ssm-ssh, restTime).
	rest = 7 * time.Second
	// crowd is how many commands run at once in heavy use: three times what sshd takes on a connection.
	crowd = 30
)

// BenchmarkIdle counts how often the processes of an idle connection run at all, ours and the peer's
// side by side. One iteration is a minute.
func BenchmarkIdle(b *testing.B) {
	r := newRig(b)
	r.usePlugin()
	master := r.masterPID()
	ssh := r.idlePlugin()
	<-time.After(rest)
	sides := []*side{{pids: []int{master}}, {pids: []int{ssh, childOf(b, ssh)}}}
	for b.Loop() {
		for _, s := range sides {
			s.moments = append(s.moments, 0)
		}
		for range idleTime / idleSample {
			<-time.After(idleSample)
			for _, s := range sides {
				s.look(b)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	report(row{fmt.Sprintf("idle for %v", idleTime), fmt.Sprintf("of %d moments", idleTime/idleSample), sides[0].moments, sides[1].moments, "ssh + plugin", idleGoal})
}

// side is the processes of one of the two.
type side struct {
	pids     []int
	switches int       // of all, at the last look
	moments  []float64 // in which one of them has run, by iteration
}

// look counts the moment since the last look, if anything has run in it.
func (s *side) look(t testing.TB) {
	t.Helper()
	sum := 0
	for _, pid := range s.pids {
		sum += testenv.Switches(t, pid)
	}
	if s.switches != 0 && sum != s.switches {
		s.moments[len(s.moments)-1]++
	}
	s.switches = sum
}

// idlePlugin leaves ssh and the plugin with a connection and nothing to do; the result is ssh.
func (r *rig) idlePlugin() int {
	r.Helper()
	cmd := exec.Command(r.ssh, r.stockArgs(r.pluginCommand(), "echo ready; cat")...)
	cmd.Env, cmd.Dir = r.env, r.dir
	stdin, err := cmd.StdinPipe()
	if err != nil {
		r.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { stdin.Close(); cmd.Wait() })
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		r.Fatalf("ssh and the plugin say %q: %v", line, err)
	}
	return cmd.Process.Pid
}

// childOf returns the only child of a process.
func childOf(t testing.TB, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Skipf("only Linux tells this: %v", err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("children of %d: %q", pid, text)
	}
	return child
}

// BenchmarkMemory tells what the processes have resident.
func BenchmarkMemory(b *testing.B) {
	r := newRig(b)
	target := r.lab.Targets()[0]
	for _, c := range calls {
		most := 0.0
		for range warmCalls {
			most = max(most, float64(r.must(r.run(program, c.args(r.ours, target)...)).memory)/mebibyte)
		}
		report(row{what: "client, " + c.name + ", at most", unit: "MiB", ours: []float64{most}, goal: "<= 14"})
	}
	resident := func() []float64 { return []float64{float64(r.residentOf(r.masterPID())) / mebibyte} }
	<-time.After(quiet)
	report(row{what: "idle master, fresh", unit: "MiB", ours: resident(), goal: "<= 20"})
	for b.Loop() {
		r.useHeavily()
	}
	report(row{what: "master after heavy use", unit: "MiB", ours: resident()})
	<-time.After(rest)
	report(row{what: fmt.Sprintf("idle master %v later", rest), unit: "MiB", ours: resident(), goal: "<= 20"})
	b.ReportMetric(0, "ns/op")
}

// useHeavily runs commands one by one and at once, and moves bytes both ways.
func (r *rig) useHeavily() {
	r.Helper()
	target := r.lab.Targets()[0]
	for range crowd {
		r.must(r.run(program, "-S", r.ours, target, "true"))
	}
	var together sync.WaitGroup
	for range crowd {
		together.Go(func() {
			cmd := exec.Command(program, "-S", r.ours, target, "true")
			cmd.Env = r.env
			if out, err := cmd.CombinedOutput(); err != nil {
				r.Errorf("%v: %s", err, out)
			}
		})
	}
	together.Wait()
	r.upload(&transfer{name: "ours", size: uploadBytes, run: r.throughMaster})
	r.download(&transfer{name: "ours", size: downloadBytes / 2, run: r.throughMaster})
}

var allocations = regexp.MustCompile(`(?m)^Benchmark(Send|Receive|Acknowledged)\S*\s.*\s(\d+) allocs/op$`)

// BenchmarkAllocations has the data channel's own benchmarks count.
func BenchmarkAllocations(b *testing.B) {
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^Benchmark(Send|Receive|Acknowledged)$", "-benchtime", "100000x", "../../ssmchannel").CombinedOutput()
	found := allocations.FindAllSubmatch(out, -1)
	if err != nil || len(found) != 3 {
		b.Fatalf("%v: %s", err, out)
	}
	for _, f := range found {
		n, err := strconv.ParseFloat(string(f[2]), 64)
		if err != nil {
			b.Fatal(err)
		}
		report(row{what: "a message, " + string(f[1]), unit: "allocations", ours: []float64{n}, goal: "0"})
	}
	b.ReportMetric(0, "ns/op")
}
