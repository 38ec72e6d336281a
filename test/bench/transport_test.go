package bench

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

const (
	// uploadBytes is what the program uploads. The plugin sends one message of 1024 bytes in a
	// millisecond, so it gets less: the rate doesn't depend on the size, and a minute less is one.
	uploadBytes       = 64 << 20
	pluginUploadBytes = 2 << 20
	downloadBytes     = 4 << 20
)

// coldDelays are the round trip times of cold starts. Between the last two the number of round trips
// is told by slope.
var coldDelays = []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond}

// way is a program, or several, that runs a command on the node.
type way struct {
	name string
	run  func() sample
	took map[time.Duration][]time.Duration
}

func (w *way) take(b *testing.B, rtt time.Duration) {
	b.Helper()
	s := w.run()
	if s.status != 0 {
		b.Fatalf("%s: status %d: %s", w.name, s.status, s.said)
	}
	w.took[rtt] = append(w.took[rtt], s.took)
}

// BenchmarkColdStart compares `true` on a node to which nobody has a connection: the program by a
// master that it makes and by a connection of its own, stock ssh with the plugin behind a program
// that does what the AWS CLI does, and with the AWS CLI itself.
func BenchmarkColdStart(b *testing.B) {
	r := newLab(b)
	plugin := r.usePlugin()
	target := r.lab.Targets()[0]
	ways := []*way{
		{name: "ours", run: func() sample { return r.run(program, target, "true") }},
		{name: "ours-alone", run: func() sample { return r.run(program, "-S", "none", target, "true") }},
		{name: "plugin", run: func() sample { return r.coldPlugin("true") }},
	}
	if _, err := testenv.Find("aws"); err == nil {
		ways = append(ways, &way{name: "aws-cli", run: func() sample { return r.coldCLI("true") }})
	}
	for _, w := range ways { // files into the cache
		w.took = make(map[time.Duration][]time.Duration)
		if s := w.run(); s.status != 0 {
			b.Fatalf("%s: status %d: %s", w.name, s.status, s.said)
		}
	}
	for b.Loop() {
		for _, rtt := range coldDelays {
			r.lab.SetLink(lab.Link{RTT: rtt})
			for _, i := range mathrand.Perm(len(ways)) {
				r.run(program, "-O", "exit", target) // there may be none
				r.lab.Settle(b.Context(), time.Second)
				<-time.After(rtt + pause)
				ways[i].take(b, rtt)
			}
		}
	}
	b.Logf("%s, %s, plugin %s, %d processors", runtime.Version(), r.run(r.ssh, "-V").said, plugin, runtime.NumCPU())
	b.ReportMetric(0, "ns/op")
	for _, w := range ways {
		for _, rtt := range coldDelays {
			b.Logf("%-10s at %3d ms %s", w.name, rtt.Milliseconds(), spread(milliseconds(w.took[rtt]), "ms"))
		}
		far, near := coldDelays[2], coldDelays[1]
		trips := (quantile(milliseconds(w.took[far]), 0.5) - quantile(milliseconds(w.took[near]), 0.5)) / float64((far - near).Milliseconds())
		b.Logf("%-10s %.1f round trips", w.name, trips)
		b.ReportMetric(trips, "trips-"+w.name)
	}
	for _, peer := range ways[2:] {
		for _, rtt := range coldDelays {
			ratios := ratiosOf(ways[0].took[rtt], peer.took[rtt])
			b.Logf("ours to %-8s at %3d ms %s", peer.name, rtt.Milliseconds(), spread(ratios, ""))
			b.ReportMetric(quantile(ratios, 0.5), fmt.Sprintf("x-%s-%dms", peer.name, rtt.Milliseconds()))
		}
	}
}

// transfer is one way of moving bytes, and its results.
type transfer struct {
	name string
	size int
	run  func(stdin, stdout *os.File, command string) sample
	rate []float64 // MB/s, without the time that `true` takes
	cpu  []float64 // ms per MB, likewise
}

// BenchmarkUpload compares uploads through a cold connection.
func BenchmarkUpload(b *testing.B) {
	compareTransfers(b, func(r *rig) []*transfer {
		return []*transfer{{name: "ours", size: uploadBytes, run: r.alone}, {name: "plugin", size: pluginUploadBytes, run: r.throughPlugin}}
	}, (*rig).upload)
}

// BenchmarkDownload compares downloads, also with what the agent's pace lets through.
func BenchmarkDownload(b *testing.B) {
	compareTransfers(b, func(r *rig) []*transfer {
		return []*transfer{{name: "ours", size: downloadBytes, run: r.alone}, {name: "plugin", size: downloadBytes, run: r.throughPlugin}, {name: "pace", size: downloadBytes}}
	}, (*rig).download)
}

// alone runs a command by the program in one process, whose processor time is then all there is.
func (r *rig) alone(stdin, stdout *os.File, command string) sample {
	r.Helper()
	return r.runWith(stdin, stdout, program, "-S", "none", r.lab.Targets()[0], command)
}

func compareTransfers(b *testing.B, waysOf func(*rig) []*transfer, move func(*rig, *transfer) sample) {
	for _, rtt := range rtts {
		b.Run(fmt.Sprintf("%dms", rtt.Milliseconds()), func(b *testing.B) {
			r := newLab(b)
			plugin := r.usePlugin()
			ways := waysOf(r)
			r.lab.SetLink(lab.Link{RTT: rtt})
			for b.Loop() {
				for _, i := range mathrand.Perm(len(ways)) {
					r.lab.Settle(b.Context(), time.Second)
					r.measure(ways[i], move)
				}
			}
			b.Logf("%s, %s, plugin %s, %d processors", runtime.Version(), r.run(r.ssh, "-V").said, plugin, runtime.NumCPU())
			b.ReportMetric(0, "ns/op")
			for _, w := range ways {
				b.Logf("%-7s %s, %s", w.name, spread(w.rate, "MB/s"), spread(w.cpu, "ms of processor time per MB"))
			}
			for _, peer := range ways[1:] {
				b.ReportMetric(r.compare("rate", ways[0].rate, peer.rate, peer.name), "rate-x-"+peer.name)
				if peer.run != nil {
					b.ReportMetric(r.compare("processor time", ways[0].cpu, peer.cpu, peer.name), "cpu-x-"+peer.name)
				}
			}
		})
	}
}

func (r *rig) compare(what string, ours, peer []float64, name string) float64 {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = ours[i] / peer[i]
	}
	r.Logf("%s, ours to %-7s %s", what, name, spread(ratios, ""))
	return quantile(ratios, 0.5)
}

// measure moves bytes in one way, and takes off what the same way takes to move none.
func (r *rig) measure(w *transfer, move func(*rig, *transfer) sample) {
	r.Helper()
	megabytes := float64(w.size) / 1e6
	if w.run == nil {
		w.rate = append(w.rate, megabytes/r.pace(w.size).Seconds())
		w.cpu = append(w.cpu, 0)
		return
	}
	none := r.must(w.run(nil, nil, "true"))
	all := move(r, w)
	w.rate = append(w.rate, megabytes/(all.took-none.took).Seconds())
	w.cpu = append(w.cpu, float64(all.cpu-none.cpu)/float64(time.Millisecond)/megabytes)
}

// upload sends a file and has the node say its digest.
func (r *rig) upload(w *transfer) sample {
	r.Helper()
	path, digest := r.file(w.size)
	f, err := os.Open(path)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	s := r.must(w.run(f, nil, "sha256sum"))
	if !strings.HasPrefix(s.said, digest) {
		r.Fatalf("%s: other bytes have arrived: %s", w.name, s.said)
	}
	return s
}

// download gets a file.
func (r *rig) download(w *transfer) sample {
	r.Helper()
	path, digest := r.file(w.size)
	f, err := os.Create(filepath.Join(r.dir, "got"))
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	s := r.must(w.run(nil, f, "cat "+path))
	sum := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		r.Fatal(err)
	}
	if n, err := io.Copy(sum, f); err != nil || fmt.Sprintf("%x", sum.Sum(nil)) != digest {
		r.Fatalf("%s: %d other bytes have arrived, %v", w.name, n, err)
	}
	return s
}

// file returns a file of random bytes that the node's user can read, and its digest.
func (r *rig) file(size int) (path, digest string) {
	r.Helper()
	path = filepath.Join(r.lab.Dir(), fmt.Sprint("random", size))
	if data, err := os.ReadFile(path); err == nil {
		return path, fmt.Sprintf("%x", sha256.Sum256(data))
	}
	data := make([]byte, size)
	rand.Read(data)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		r.Fatal(err)
	}
	return path, fmt.Sprintf("%x", sha256.Sum256(data))
}
