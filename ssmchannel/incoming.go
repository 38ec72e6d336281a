package ssmchannel

import (
	"bytes"

	"ssm-ssh/ssmchannel/agentmsg"
)

// incoming is the receiving side's state: it puts stream messages in order and
// finds duplicates. It does no I/O. Its owner's mutex guards it.
type incoming struct {
	next       int64 // the number that is due
	ahead      map[int64]stored
	aheadBytes int
	maxBytes   int // bound of aheadBytes
	duplicates uint64
}

// stored is a message that came before its turn.
type stored struct {
	kind    agentmsg.PayloadType
	payload []byte
}

// verdict is what becomes of a received stream message.
type verdict int

const (
	// refused: no room; no acknowledgement, the agent sends it again.
	refused verdict = iota
	// duplicate: known already; acknowledged again, else the agent repeats it
	// for ever and never comes to a later loss.
	duplicate
	// early: kept until its turn; acknowledged.
	early
	// due: its turn; acknowledged, and to be delivered.
	due
)

// maxAhead bounds what is kept in messages; the plugin's bound (config/config.go,
// IncomingMessageBufferCapacity).
const maxAhead = 10000

func newIncoming(maxBytes int) incoming {
	return incoming{ahead: make(map[int64]stored), maxBytes: maxBytes}
}

// received judges message n. An early payload is copied, a due one stays the
// caller's, who delivers it and then whatever pop returns.
func (in *incoming) received(n int64, kind agentmsg.PayloadType, payload []byte) verdict {
	if n < in.next {
		in.duplicates++
		return duplicate
	}
	if n == in.next {
		in.next++
		return due
	}
	if _, ok := in.ahead[n]; ok {
		in.duplicates++
		return duplicate
	}
	if len(in.ahead) >= maxAhead || in.aheadBytes+len(payload) > in.maxBytes {
		return refused
	}
	in.ahead[n] = stored{kind, bytes.Clone(payload)}
	in.aheadBytes += len(payload)
	return early
}

// pop returns the kept message whose turn it is, if any.
func (in *incoming) pop() (stored, bool) {
	if len(in.ahead) == 0 {
		return stored{}, false
	}
	s, ok := in.ahead[in.next]
	if ok {
		delete(in.ahead, in.next)
		in.aheadBytes -= len(s.payload)
		in.next++
	}
	return s, ok
}

// gap reports whether something is missing before what was received.
func (in *incoming) gap() bool { return len(in.ahead) > 0 }
