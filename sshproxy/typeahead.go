package sshproxy

import (
	"io"
	"os"
	"sync"
)

// typeaheadLimit is how much of a terminal's input waits for a connection that takes nothing: as much as
// OpenSSH's client takes ahead of its peer, a window of sshd's (channels.h, CHAN_SES_WINDOW_DEFAULT).
const typeaheadLimit = 2 << 20

// typeahead is a terminal's input without the escapes. It is read on while the connection is stuck, so
// that ~. ends a session whose link is dead. Its reader, fill, is the only one to touch the filter.
type typeahead struct {
	source io.Reader
	filter *escapeFilter
	end    *stream // source's

	mu      sync.Mutex
	changed sync.Cond // of all below
	waiting []byte
	err     error // no more comes
	closed  bool
}

func newTypeahead(source io.Reader, filter *escapeFilter) *typeahead {
	t := &typeahead{source: source, filter: filter, end: newStream(source)}
	t.changed.L = &t.mu
	return t
}

// fill reads until the source's end or Close.
func (t *typeahead) fill() {
	typed := make([]byte, pumpBytes)
	var kept []byte
	for {
		n, err := t.source.Read(typed)
		kept = t.filter.filter(kept[:0], typed[:n])
		if t.filter.over {
			err = io.EOF
		}
		if !t.put(kept, err) {
			return
		}
	}
}

// put adds input, and the reason why there is no more; it waits for room and tells whether to go on.
func (t *typeahead) put(kept []byte, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.waiting) > 0 && len(t.waiting)+len(kept) > typeaheadLimit && !t.closed {
		t.changed.Wait()
	}
	t.waiting = append(t.waiting, kept...)
	t.err = err
	t.changed.Broadcast()
	return err == nil && !t.closed
}

// Read waits for input.
func (t *typeahead) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.waiting) == 0 && t.err == nil && !t.closed {
		t.changed.Wait()
	}
	switch {
	case t.closed:
		return 0, os.ErrClosed
	case len(t.waiting) == 0:
		return 0, t.err
	}
	n := copy(p, t.waiting)
	if t.waiting = t.waiting[n:]; len(t.waiting) == 0 {
		t.waiting = nil // what a paste has needed isn't kept
	}
	t.changed.Broadcast()
	return n, nil
}

// Close ends Read and fill.
func (t *typeahead) Close() error {
	t.mu.Lock()
	t.closed = true
	t.changed.Broadcast()
	t.mu.Unlock()
	t.end.Close()
	return nil
}
