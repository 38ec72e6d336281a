package sshproxy

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// wire is the connection below SSH. It remembers what x/crypto/ssh does not tell: when bytes last
// moved, and the first error of each direction, which is why the connection ended.
type wire struct {
	net.Conn

	started   time.Time // origin of the clocks below; monotonic
	lastRead  atomic.Int64
	lastWrite atomic.Int64
	heard     atomic.Bool // the peer has sent a byte

	timedOut atomic.Bool // the peer sent nothing within the limit

	kex kexReader

	mu           sync.Mutex
	versionTimer *time.Timer // bounds the wait for the first byte; nil without a limit
	closing      bool        // by us: errors from here on are our own doing
	readErr      error
	writeErr     error

	closeOnce sync.Once
	closeErr  error
}

// newWire wraps conn. With a limit, conn is closed when the peer has said nothing within it.
func newWire(conn net.Conn, limit time.Duration) *wire {
	w := &wire{Conn: conn, started: time.Now()}
	if limit > 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.versionTimer = time.AfterFunc(limit, func() {
			w.timedOut.Store(true)
			w.Close()
		})
	}
	return w
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.lastRead.Store(int64(time.Since(w.started)))
		if !w.heard.Swap(true) {
			w.stopTimer()
		}
		w.kex.observe(p[:n])
	}
	if err != nil {
		w.note(&w.readErr, err)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if n > 0 {
		w.lastWrite.Store(int64(time.Since(w.started)))
	}
	if err != nil {
		w.note(&w.writeErr, err)
	}
	return n, err
}

// Close closes the connection once; a second caller waits for the first.
func (w *wire) Close() error {
	w.closeOnce.Do(func() {
		w.mu.Lock()
		w.closing = true
		w.mu.Unlock()
		w.stopTimer()
		w.closeErr = w.Conn.Close()
	})
	return w.closeErr
}

func (w *wire) stopTimer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.versionTimer != nil {
		w.versionTimer.Stop()
	}
}

func (w *wire) note(field *error, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if *field == nil && !w.closing {
		*field = err
	}
}

// failure returns the first error of each direction.
func (w *wire) failure() (readErr, writeErr error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.readErr, w.writeErr
}

// readIdle and writeIdle return for how long nothing has moved in that direction.
func (w *wire) readIdle() time.Duration {
	return time.Since(w.started) - time.Duration(w.lastRead.Load())
}
func (w *wire) writeIdle() time.Duration {
	return time.Since(w.started) - time.Duration(w.lastWrite.Load())
}
