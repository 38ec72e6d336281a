package lab_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// The figures of the official plugin behind stock ssh, as seen with the real agent. The lab is
// only worth measuring against while it stays within them.
const (
	figureBytes   = 2 << 20
	downLeast     = 0.65e6 // bytes per second of the whole command, the cold start included
	downMost      = 0.93e6
	upLeast       = 0.5e6
	upMost        = 0.8e6
	coldTrips     = 14
	coldTolerance = 2
	// coldConnects are the TCP connections of a cold start, API and gateway. The reference was
	// taken behind a relay that accepts at once; the lab charges the round trip of each TCP
	// handshake, as a network does, so it counts two more.
	coldConnects = 2
)

// A figure is the fastest of some tries, since whatever else the machine does only adds to the time. A lab
// that is too fast shows at once; to show that it isn't too slow takes more tries on a busy machine.
const (
	leastTries = 3
	mostTries  = 10
)

// TestFigures runs without the race detector, in a test binary of its own if need be: figures of
// a program that is five times slower say nothing.
func TestFigures(t *testing.T) {
	if testing.Short() {
		t.Skip("measures time and wants the machine to itself: run by make test-full")
	}
	if !testenv.Race {
		t.Run("cold start", figureCold)
		t.Run("transfer", figureTransfer)
		return
	}
	if _, err := buildPlugin(); err != nil {
		t.Skip(err)
	}
	binary := filepath.Join(t.TempDir(), "lab.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), binary, "-test.run=^TestFigures$", "-test.v", "-test.timeout=3m").CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

// figureCold counts the round trips of a cold `ssh target true` by slope between two delays.
func figureCold(t *testing.T) {
	const near, far = 0, 150 * time.Millisecond
	s := startStock(t, lab.Options{})
	at := func(rtt time.Duration) time.Duration {
		s.lab.SetLink(lab.Link{RTT: rtt})
		return s.fastest(t, leastTries, func(ctx context.Context) error {
			_, err := s.ssh(ctx, nil, "true")
			return err
		})
	}
	before := s.lab.Counts()
	fast, slow := at(near), at(far)
	after := s.lab.Counts()
	trips := (slow - fast).Seconds() / (far - near).Seconds()
	t.Logf("cold: %v at %v, %v at %v: %.1f round trips, %d of them for TCP", fast, time.Duration(near), slow, far, trips, coldConnects)
	if connects, starts := after.Connects-before.Connects, after.StartSession-before.StartSession; connects != coldConnects*starts {
		t.Errorf("%d connections for %d sessions", connects, starts)
	}
	if d := trips - coldConnects - coldTrips; d < -coldTolerance || d > coldTolerance {
		t.Errorf("%.1f round trips, want %d±%d and %d for TCP", trips, coldTrips, coldTolerance, coldConnects)
	}
}

func figureTransfer(t *testing.T) {
	s := startStock(t, lab.Options{})
	data := make([]byte, figureBytes)
	rand.Read(data)
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	path := filepath.Join(s.lab.Dir(), "data")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	up := func(ctx context.Context) error {
		out, err := s.ssh(ctx, data, "sha256sum")
		if err == nil && !strings.HasPrefix(string(out), sum) {
			return fmt.Errorf("other bytes arrived: %s", out)
		}
		return err
	}
	down := func(ctx context.Context) error {
		out, err := s.ssh(ctx, nil, "cat", path)
		if err == nil && !bytes.Equal(out, data) {
			return fmt.Errorf("other bytes arrived: %d", len(out))
		}
		return err
	}
	for _, f := range []struct {
		name        string
		move        func(context.Context) error
		least, most float64
	}{{"up", up, upLeast, upMost}, {"down", down, downLeast, downMost}} {
		took := s.fastest(t, leastTries, f.move)
		for tries := leastTries; figureBytes/took.Seconds() < f.least && tries < mostTries; tries++ {
			took = min(took, s.fastest(t, 1, f.move))
		}
		rate := figureBytes / took.Seconds()
		t.Logf("%s: %.3f MB/s", f.name, rate/1e6)
		if rate < f.least || rate > f.most {
			t.Errorf("%s: %.3f MB/s, want %.2f to %.2f", f.name, rate/1e6, f.least/1e6, f.most/1e6)
		}
	}
}

// fastest returns the least of n times that do takes.
func (s *stock) fastest(t *testing.T, n int, do func(context.Context) error) time.Duration {
	t.Helper()
	var least time.Duration
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		began := time.Now()
		err := do(ctx)
		took := time.Since(began)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		if least == 0 || took < least {
			least = took
		}
	}
	return least
}
