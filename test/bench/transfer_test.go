package bench

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
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

// transfer is one way of moving bytes, and its results.
type transfer struct {
	name string
	size int
	run  func(stdin, stdout *os.File, command string) sample // nil: pace
	rate []float64                                           // MB/s, without the time that `true` takes
	cpu  []float64                                           // ms per MB, likewise
}

// direction is a benchmark of transfers.
type direction struct {
	name          string
	ours, plugins int // bytes
	move          func(*rig, *transfer) sample
	rate, cpu     string // goals against the plugin
}

// BenchmarkUpload compares uploads.
func BenchmarkUpload(b *testing.B) {
	direction{"upload", uploadBytes, pluginUploadBytes, (*rig).upload, ">= 15", "<= 0.5"}.compare(b)
}

// BenchmarkDownload compares downloads, also with what the agent's pace lets through.
func BenchmarkDownload(b *testing.B) {
	direction{"download", downloadBytes, downloadBytes, (*rig).download, ">= 1.0", "<= 0.5"}.compare(b)
}

// compare moves bytes through a living master of the program's, and through ssh and the plugin.
func (d direction) compare(b *testing.B) {
	for _, rtt := range rtts {
		b.Run(inMS(rtt), func(b *testing.B) {
			r := newRig(b)
			r.usePlugin()
			ways := []*transfer{{name: "ours", size: d.ours, run: r.throughMaster}, {name: "ssh + plugin", size: d.plugins, run: r.throughPlugin}}
			if d.name == "download" {
				ways = append(ways, &transfer{name: "agent's pace", size: d.ours})
			}
			r.lab.SetLink(lab.Link{RTT: rtt})
			b.ResetTimer()
			for b.Loop() {
				for _, i := range mathrand.Perm(len(ways)) {
					r.measure(ways[i], d.move)
				}
			}
			b.ReportMetric(0, "ns/op")
			d.report(rtt, ways)
		})
	}
}

func (d direction) report(rtt time.Duration, ways []*transfer) {
	what := fmt.Sprintf("%s, %s", d.name, inMS(rtt))
	ours, plugin := ways[0], ways[1]
	report(row{what, "MB/s", ours.rate, plugin.rate, plugin.name, d.rate})
	for _, pace := range ways[2:] {
		report(row{what, "MB/s", ours.rate, pace.rate, pace.name, ">= 0.98"})
	}
	report(row{what + ", processor time", "ms/MB", ours.cpu, plugin.cpu, plugin.name, d.cpu})
}

// measure moves bytes in one way, and takes off what the same way takes to move none.
func (r *rig) measure(w *transfer, move func(*rig, *transfer) sample) {
	r.Helper()
	megabytes := float64(w.size) / 1e6
	if w.run == nil {
		w.rate = append(w.rate, megabytes/r.pace(w.size).Seconds())
		return
	}
	none := r.must(w.run(nil, nil, "true"))
	all := move(r, w)
	w.rate = append(w.rate, megabytes/(all.took-none.took).Seconds())
	w.cpu = append(w.cpu, milliseconds(all.cpu-none.cpu)/megabytes)
}

// throughMaster runs a command by a client of the program's master. The processor time is of both.
func (r *rig) throughMaster(stdin, stdout *os.File, command string) sample {
	r.Helper()
	master := r.masterPID()
	before := testenv.ProcessorTime(r, master)
	s := r.runWith(stdin, stdout, program, "-S", r.ours, r.lab.Targets()[0], command)
	s.cpu += testenv.ProcessorTime(r, master) - before
	return s
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
