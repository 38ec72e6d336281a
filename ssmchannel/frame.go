package ssmchannel

import "sync"

// frame is one outgoing message in wire form. From push to its acknowledgement
// it belongs to outgoing.
type frame struct{ b []byte }

// framePool keeps frames of one size for reuse.
type framePool struct {
	size int
	pool sync.Pool
}

// get returns a frame with no bytes in it.
func (p *framePool) get() *frame {
	if f, ok := p.pool.Get().(*frame); ok {
		return f
	}
	return &frame{b: make([]byte, 0, p.size)}
}

// put takes a frame back.
func (p *framePool) put(f *frame) {
	f.b = f.b[:0]
	p.pool.Put(f)
}
