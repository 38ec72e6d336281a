package sshproxy

import (
	"io"
	"sync"
)

// stream closes one local stream once, however many find it at its end.
type stream struct {
	close sync.Once
	end   func()
}

func newStream(v any) *stream {
	s := &stream{end: func() {}}
	if c, ok := v.(io.Closer); ok {
		// The stream is given up either way; an error has no reader left.
		s.end = func() { _ = c.Close() }
	}
	return s
}

// Close ends the stream; it may be nil, when the session was never started.
func (s *stream) Close() {
	if s != nil {
		s.close.Do(s.end)
	}
}

// pump takes over the streams and begins to move them.
func (s *Session) pump(req *SessionRequest) {
	s.mu.Lock()
	s.stdin, s.stdout, s.stderr = newStream(req.Stdin), newStream(req.Stdout), newStream(req.Stderr)
	in, out, errs := s.stdin, s.stdout, s.stderr
	noMore := s.stdinOver
	s.mu.Unlock()
	if noMore {
		in.Close()
	}
	if s.discarding.Load() {
		out.Close()
		errs.Close()
	}
	s.client.sessions.Add(1)
	s.wg.Go(func() { s.pumpStdin(req.Stdin, in) })
	s.wg.Go(func() { s.pumpStdout(req.Stdout, out) })
	s.wg.Go(func() { s.pumpStderr(req, errs) })
}

// pumpStdin copies until the local end, then sends EOF. A write fails only with the channel's end.
func (s *Session) pumpStdin(r io.Reader, local *stream) {
	defer local.Close()
	if r != nil {
		buf := make([]byte, pumpBytes)
		for {
			n, readErr := r.Read(buf)
			if n > 0 {
				if _, err := s.ch.Write(buf[:n]); err != nil {
					return
				}
			}
			if readErr != nil {
				break
			}
		}
	}
	s.mu.Lock()
	unwanted := s.eow
	s.mu.Unlock()
	if !unwanted {
		_ = s.ch.CloseWrite() // fails only when the channel has ended
	}
}

// pumpStdout copies until the remote end has sent EOF, then closes the local stream: its reader
// learns of it before the exit status. When the local reader has gone, the node is told (eow) and
// the rest is discarded.
func (s *Session) pumpStdout(w io.Writer, local *stream) {
	defer local.Close()
	s.copyOut(s.ch, w, func() {
		local.Close()
		_, _ = s.ch.SendRequest(eowRequest, false, nil)
	})
}

// pumpStderr goes on to the channel's end: other servers than OpenSSH's send stderr after EOF, and
// x/crypto/ssh ends both streams at the same EOF.
func (s *Session) pumpStderr(req *SessionRequest, local *stream) {
	defer s.client.sessions.Add(-1)
	defer local.Close()
	s.copyOut(s.ch.Stderr(), req.Stderr, local.Close)
	<-s.closed
	s.copyOut(s.ch.Stderr(), req.Stderr, local.Close)
	s.mu.Lock()
	orderly := s.hasStatus
	s.mu.Unlock()
	if orderly || req.LastWords == nil || req.Stderr == nil || s.discarding.Load() {
		return
	}
	_, _ = io.WriteString(req.Stderr, req.LastWords()) // its reader may have gone
}

// copyOut copies until EOF; broken is called at the first failed write, and the rest is discarded.
func (s *Session) copyOut(r io.Reader, w io.Writer, broken func()) {
	buf := make([]byte, pumpBytes)
	for open := w != nil; ; {
		n, readErr := r.Read(buf)
		if n > 0 && open && !s.discarding.Load() {
			if _, err := w.Write(buf[:n]); err != nil {
				open = false
				broken()
			}
		}
		if readErr != nil {
			return
		}
	}
}

// stopStdin ends the reading of stdin; eow says that the node asked for it.
func (s *Session) stopStdin(eow bool) {
	s.mu.Lock()
	s.stdinOver = true
	s.eow = s.eow || eow
	in := s.stdin
	s.mu.Unlock()
	in.Close()
}

// letGo ends all local streams, blocked calls included.
func (s *Session) letGo() {
	s.discarding.Store(true)
	s.mu.Lock()
	out, errs := s.stdout, s.stderr
	s.mu.Unlock()
	out.Close()
	errs.Close()
	s.stopStdin(false)
}
