package ssmchannel

import "time"

// moderation spaces out the reads of a bulk download, as network drivers moderate their interrupts.
// The agent sends one message in a millisecond. Taken one by one, each costs half a dozen switches
// between threads, which are more than all the work on it: reading, acknowledging and handing it on.
// Left in the socket's buffer for a few milliseconds, several cost as much as one.
//
// Only messages that are full and follow each other closely make a bulk; the answer to a keystroke, or
// a screenful, is never held up. Time is a parameter; the receive loop owns it.
type moderation struct {
	bulk   int       // full messages in a row, none long after the one before
	last   time.Time // when the latest was taken, or the latest pause was over
	waited bool      // the latest was waited for, so that no other is there yet
}

const (
	// fullPayload is what the agent fills when it has more (agent: session/config/config.go,
	// StreamDataPayloadSize).
	fullPayload = 1024
	// bulkMessages is how many full messages in a row make a bulk: more than a screenful.
	bulkMessages = 16
	// bulkGap is the longest time between two of them.
	bulkGap = 4 * time.Millisecond
	// queuedGap is the longest time between two messages of which the second was there already.
	queuedGap = 300 * time.Microsecond
	// readPause is how long a message may wait in the socket. The agent sees a round trip that is longer by
	// half of it and varies by a quarter; it repeats what is older than the one and four times the other,
	// or 10 ms (agent: session/config/config.go, ClockGranularity), so nothing on this account.
	readPause = 12 * time.Millisecond
)

// took takes note of a message with that many bytes of payload.
func (m *moderation) took(now time.Time, payload int) {
	gap := now.Sub(m.last)
	m.last, m.waited = now, gap > queuedGap
	switch {
	case payload < fullPayload || gap > bulkGap:
		m.bulk = 0
	case m.bulk < bulkMessages:
		m.bulk++
	}
}

// pause returns how long to leave the websocket alone.
func (m *moderation) pause() time.Duration {
	if m.bulk < bulkMessages || !m.waited {
		return 0
	}
	return readPause
}

// paused takes note of the end of a pause: what is taken next was there already.
func (m *moderation) paused(now time.Time) { m.last, m.waited = now, false }
