package ssmchannel

// sendWindow bounds what is unacknowledged, in bytes of whole messages and in
// messages. It grows with acknowledgements and shrinks with losses, as TCP's
// congestion window does (RFC 5681), so that no rate has to be fixed: the wire
// has no flow control, and the agent shows distress only by acknowledging late.
type sendWindow struct {
	bytes       int // in use
	messages    int // in use
	limit       int // present bound in bytes
	threshold   int // above it growth is linear
	maxBytes    int
	maxMessages int
	stepBytes   int    // linear growth per window: one full message
	recovered   uint64 // losses of transmissions up to this ordinal are one event
}

const (
	// initialWindow fills a 20 ms path at 12 MB/s and doubles per round trip.
	initialWindow = 256 << 10
	// leastWindow keeps the sender going through any loss.
	leastWindow = 16 << 10
	// Beta of RFC 9438 (CUBIC), gentler than one half: a lost message here is a
	// gateway's doing, not a router's.
	shrinkNumerator, shrinkDenominator = 7, 10
)

func newSendWindow(maxBytes, maxMessages, stepBytes int) sendWindow {
	return sendWindow{
		limit:       min(initialWindow, maxBytes),
		threshold:   maxBytes,
		maxBytes:    maxBytes,
		maxMessages: maxMessages,
		stepBytes:   stepBytes,
	}
}

// room reports whether a message of n bytes fits. An empty window takes any.
func (w *sendWindow) room(n int) bool {
	return w.messages == 0 || w.bytes+n <= w.limit && w.messages < w.maxMessages
}

// reopen forgets all losses.
func (w *sendWindow) reopen() {
	w.limit, w.threshold = min(initialWindow, w.maxBytes), w.maxBytes
}

func (w *sendWindow) add(n int) {
	w.bytes += n
	w.messages++
}

// acked takes n bytes out and lets the window grow if it was in use.
func (w *sendWindow) acked(n int) {
	if 2*w.bytes >= w.limit { // else the limit was not what held the sender
		if w.limit < w.threshold {
			w.limit += n
		} else {
			w.limit += max(1, w.stepBytes*n/w.limit)
		}
		w.limit = min(w.limit, w.maxBytes)
	}
	w.bytes -= n
	w.messages--
}

// lost shrinks the window once for all losses among the transmissions up to
// latest. ordinal is the lost one.
func (w *sendWindow) lost(ordinal, latest uint64) {
	if ordinal > w.recovered {
		w.restart(latest)
	}
}

// restart shrinks the window; later losses of transmissions up to latest do not
// shrink it again.
func (w *sendWindow) restart(latest uint64) {
	w.recovered = latest
	w.limit = max(w.limit/shrinkDenominator*shrinkNumerator, leastWindow)
	w.limit = min(w.limit, w.maxBytes)
	w.threshold = w.limit
}
