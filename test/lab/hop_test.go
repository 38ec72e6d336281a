package lab

// This file is within the package since the delay line has no exported face of its own.

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echoThrough starts an echo server behind a hop and connects to it.
func echoThrough(t *testing.T, link Link) (*hop, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHop("test", link, nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := h.listen(l).Accept()
		if err != nil {
			return
		}
		io.Copy(c, c)
		c.Close()
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		l.Close()
		h.close()
		<-served
	})
	return h, c
}

func exchange(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// least returns the shortest of a few times: a busy machine can only lengthen them.
func least(one func() time.Duration) time.Duration {
	d := one()
	for range 4 {
		d = min(d, one())
	}
	return d
}

func TestHopDelays(t *testing.T) {
	const rtt = 100 * time.Millisecond
	first := least(func() time.Duration {
		_, c := echoThrough(t, Link{RTT: rtt})
		return exchange(t, c)
	})
	if first < 2*rtt || first > 3*rtt {
		t.Errorf("the first exchange took %v: want two round trips, one for TCP's handshake", first)
	}
	h, c := echoThrough(t, Link{RTT: rtt})
	exchange(t, c)
	if d := least(func() time.Duration { return exchange(t, c) }); d < rtt || d > 2*rtt {
		t.Errorf("a later exchange took %v, want one round trip of %v", d, rtt)
	}
	h.setLink(Link{})
	if d := least(func() time.Duration { return exchange(t, c) }); d > rtt {
		t.Errorf("without delay it took %v", d)
	}
}

func TestHopKeepsThroughputAndOrder(t *testing.T) {
	const size = 24 << 20
	const least = 2 // MB/s; a line that waited for each 64 KiB would carry 0.6
	_, c := echoThrough(t, Link{RTT: 100 * time.Millisecond, Jitter: 5 * time.Millisecond})
	data := make([]byte, size)
	rand.Read(data)
	began := time.Now()
	go func() { // ends with the connection
		c.Write(data)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, equal %v, %v", len(got), bytes.Equal(got, data), err)
	}
	if rate := size / time.Since(began).Seconds() / 1e6; rate < least {
		t.Errorf("%.1f MB/s", rate)
	}
}

func TestHopLimitsBandwidth(t *testing.T) {
	_, c := echoThrough(t, Link{BytesPerSecond: 1 << 20})
	began := time.Now()
	go c.Write(make([]byte, 200<<10))
	if _, err := io.ReadFull(c, make([]byte, 200<<10)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d < 190*time.Millisecond {
		t.Errorf("200 KiB at 1 MiB/s took %v", d)
	}
}

func TestHopStalls(t *testing.T) {
	h, c := echoThrough(t, Link{})
	exchange(t, c)
	h.setStalled(true)
	c.Write([]byte("y"))
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a byte came through the black hole: %v", err)
	}
	c.SetReadDeadline(time.Time{})
	h.setStalled(false)
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestHopCutsAndRefuses(t *testing.T) {
	h, c := echoThrough(t, Link{RTT: 10 * time.Millisecond})
	exchange(t, c)
	h.setRefusing(true)
	h.cut()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a cut connection reads %v, want a reset", err)
	}
}

func TestLineDeadlines(t *testing.T) {
	l := new(line)
	l.init(newHop("test", Link{}, nil))
	l.setReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := l.take(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("take: %v", err)
	}
	if _, err := l.put(make([]byte, lineLimitBytes), time.Time{}); err != nil {
		t.Fatal(err)
	}
	l.setWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := l.put([]byte("x"), time.Time{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("put into a full line: %v", err)
	}
}

func TestPathFaults(t *testing.T) {
	frames := func(texts ...string) (out [][]byte) {
		for _, s := range texts {
			out = append(out, []byte(s))
		}
		return out
	}
	tests := []struct {
		name   string
		faults []MessageFaults // of each message in turn
		want   [][]byte
	}{
		{"healthy", []MessageFaults{{}, {}, {}}, frames("0", "1", "2")},
		{"loss", []MessageFaults{{}, {Loss: 1}, {}}, frames("0", "2")},
		{"duplicate", []MessageFaults{{}, {Dup: 1}, {}}, frames("0", "1", "1", "2")},
		{"overtaken by one", []MessageFaults{{Reorder: 1}, {}, {}}, frames("1", "0", "2")},
		{"overtaken by two", []MessageFaults{{Reorder: 1, ReorderBy: 2}, {}, {}}, frames("1", "2", "0")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := new(path)
			var got [][]byte
			for i, f := range tt.faults {
				got = append(got, p.pass([]byte{byte('0' + i)}, f)...)
			}
			if !bytes.Equal(bytes.Join(got, []byte(" ")), bytes.Join(tt.want, []byte(" "))) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCompareVersions(t *testing.T) {
	tests := []struct {
		name, a, b string
		want       int // its sign
	}{
		{"equal", "1.3.0.0", "1.3.0.0", 0},
		{"numbers, not text", "1.1.100", "1.1.70", 1},
		{"longer is greater", "1.1.70.0", "1.1.70", 1},
		{"word above number", "dev", "1.1.70", 1},
		{"empty is least", "", "1.1.70", -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := compareVersions(tt.a, tt.b)
			if (got > 0) != (tt.want > 0) || (got < 0) != (tt.want < 0) {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}
