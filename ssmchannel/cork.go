package ssmchannel

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// corkTransport is an http.RoundTripper that puts a corkedBody around the body
// of a successful upgrade. This is the one place between the websocket library
// and TLS: several frames share one TLS record and one system call, whatever
// transport the caller has configured.
type corkTransport struct {
	base   http.RoundTripper
	events linkEvents
	body   *corkedBody // of the upgrade; set by RoundTrip
}

func (t *corkTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		return resp, err
	}
	rwc, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		resp.Body.Close()
		return nil, errors.New("upgraded connection is not writable")
	}
	t.body = newCorkedBody(rwc, t.events)
	resp.Body = t.body
	return resp, nil
}

// corkedBody holds writes back until flush and reads in large pieces.
type corkedBody struct {
	rwc      io.ReadWriteCloser
	events   linkEvents
	lastRead atomic.Int64 // nanoseconds since created
	created  time.Time
	writing  atomic.Bool // the owner is in link.Write and flushes after it

	in         []byte // the reader's
	start, end int

	mu    sync.Mutex
	out   []byte
	spare []byte // the flusher's, while it writes
}

const (
	// corkedReadBytes is one read's buffer; two TLS records.
	corkedReadBytes = 32 << 10
	// maxCorkedBytes bounds what answers to pings can pile up while a flush is
	// stuck; it is far above flushBytes and one message.
	maxCorkedBytes = 1 << 20
)

var errCorkFull = errors.New("too much to write on a stuck websocket")

func newCorkedBody(rwc io.ReadWriteCloser, events linkEvents) *corkedBody {
	return &corkedBody{
		rwc: rwc, events: events, created: time.Now(),
		in: make([]byte, corkedReadBytes),
	}
}

// Read implements io.Reader.
func (b *corkedBody) Read(p []byte) (int, error) {
	if b.start == b.end {
		b.events.beforeRead()
		n, err := b.rwc.Read(b.in)
		b.lastRead.Store(int64(time.Since(b.created)))
		b.start, b.end = 0, n
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, b.in[b.start:b.end])
	b.start += n
	return n, nil
}

// Write implements io.Writer. It never blocks: a pong is written by the reader,
// who must not wait for a peer that does not read.
func (b *corkedBody) Write(p []byte) (int, error) {
	b.mu.Lock()
	full := len(b.out)+len(p) > maxCorkedBytes
	if !full {
		b.out = append(b.out, p...)
	}
	b.mu.Unlock()
	if full {
		return 0, errCorkFull
	}
	if !b.writing.Load() {
		b.events.queued()
	}
	return len(p), nil
}

// flush writes what is held back. One goroutine at a time.
func (b *corkedBody) flush() error {
	b.mu.Lock()
	out := b.out
	b.out = b.spare[:0]
	b.mu.Unlock()
	b.spare = out
	if len(out) == 0 {
		return nil
	}
	_, err := b.rwc.Write(out)
	return err
}

// Close implements io.Closer.
func (b *corkedBody) Close() error { return b.rwc.Close() }
