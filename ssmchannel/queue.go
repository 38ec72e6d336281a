package ssmchannel

// fifo is a queue in a ring that grows by doubling, and begins anew when it is
// empty after it was long. Its users bound its length.
type fifo[T any] struct {
	ring       []T // length zero or a power of two
	head, tail uint
}

const (
	firstRing = 16
	// keptRing is how many places an empty queue may keep: more than a short round trip's window has
	// messages, so that an upload that empties it often does not allocate each time.
	keptRing = 1024
)

func (q *fifo[T]) len() int { return int(q.tail - q.head) }

// push adds v at the end.
func (q *fifo[T]) push(v T) {
	if q.len() == len(q.ring) {
		q.grow()
	}
	*q.at(q.len()) = v
	q.tail++
}

// at returns the place of the i-th element from the front. It stays valid until
// the next push.
func (q *fifo[T]) at(i int) *T {
	return &q.ring[(q.head+uint(i))&uint(len(q.ring)-1)]
}

// pop removes the first element; the queue is not empty.
func (q *fifo[T]) pop() T {
	var zero T
	p := q.at(0)
	v := *p
	*p = zero
	q.head++
	if q.len() == 0 && len(q.ring) > keptRing {
		*q = fifo[T]{}
	}
	return v
}

func (q *fifo[T]) clear() {
	clear(q.ring)
	q.head, q.tail = 0, 0
}

func (q *fifo[T]) grow() {
	ring := make([]T, max(firstRing, 2*len(q.ring)))
	n := q.len()
	for i := range n {
		ring[i] = *q.at(i)
	}
	q.ring, q.head, q.tail = ring, 0, uint(n)
}

// byteQueue is a queue of bytes in a ring that grows by doubling. Its user
// bounds its length.
type byteQueue struct {
	ring []byte // length zero or a power of two
	head int    // index of the first byte
	n    int    // bytes held
}

const (
	firstByteRing = 16 << 10
	// keptByteRing is what an empty queue may keep allocated.
	keptByteRing = 256 << 10
)

// write adds a copy of p.
func (q *byteQueue) write(p []byte) {
	if q.n+len(p) > len(q.ring) {
		q.grow(q.n + len(p))
	}
	tail := (q.head + q.n) & (len(q.ring) - 1)
	copied := copy(q.ring[tail:], p)
	copy(q.ring, p[copied:])
	q.n += len(p)
}

// read moves bytes into p and returns how many.
func (q *byteQueue) read(p []byte) int {
	p = p[:min(len(p), q.n)]
	if len(p) == 0 {
		return 0
	}
	copied := copy(p, q.ring[q.head:])
	copy(p[copied:], q.ring)
	q.head = (q.head + len(p)) & (len(q.ring) - 1)
	q.n -= len(p)
	if q.n == 0 && len(q.ring) > keptByteRing {
		*q = byteQueue{}
	}
	return len(p)
}

func (q *byteQueue) grow(want int) {
	size := max(firstByteRing, len(q.ring))
	for size < want {
		size *= 2
	}
	ring := make([]byte, size)
	n := q.n
	q.read(ring[:n:n])
	*q = byteQueue{ring: ring, n: n}
}
