package ssmchannel

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// What a connection holds at most by default, as the package comment states it.
const (
	statedMemory        = 9 << 20
	statedBlockedMemory = 24 << 20
)

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// hoard is a connection that is offered more of everything than it may take.
type hoard struct {
	*testing.T
	*Conn
	number int64 // of the next message from the agent
}

// write fills the window: nothing is acknowledged.
func (h *hoard) write(payload []byte, wait bool) {
	for f := h.newFrame(agentmsg.Output, payload); h.out.room(len(f.b)) || wait; f = h.newFrame(agentmsg.Output, payload) {
		if queued, err := h.enqueue(f); err != nil || !queued {
			return // now a Write waits
		}
		h.out.transmit(time.Now())
	}
}

// receive takes n messages in, as recvLoop does: not while it waits for room.
func (h *hoard) receive(n int) {
	payload := make([]byte, 1024)
	for ; n > 0 && (h.heldLocked() < h.cfg.IncomingBytes || h.health.waiting); n-- {
		frame := agentmsg.AppendMessage(nil, &agentmsg.Message{
			Type: agentmsg.OutputStreamData, CreatedMillis: 1, Sequence: h.number, PayloadType: agentmsg.Output, Payload: payload,
		})
		if err := h.Conn.receive(frame); err != nil {
			h.Fatal(err)
		}
		h.number++
	}
}

// TestMemoryIsBounded holds the package comment to its word.
func TestMemoryIsBounded(t *testing.T) {
	tests := []struct {
		name   string
		write  []byte
		wait   bool // a Write waits, so that reading goes on
		stated int64
	}{
		{"nobody reads", make([]byte, 1024), false, statedMemory},
		{"nobody reads, bytes are written", []byte("x"), false, statedMemory},
		{"a reader waits in Write", make([]byte, 1024), true, statedBlockedMemory},
		{"a reader waits in a Write of bytes", []byte("x"), true, statedBlockedMemory},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := heapBytes()
			h := &hoard{T: t, Conn: newConn(Session{ID: "s-1"}, Config{}.populate(), nil)}
			defer h.cancel(errors.New("over"))
			h.out.window.limit = h.out.window.maxBytes // it has grown
			h.write(tt.write, tt.wait)
			h.receive(h.cfg.IncomingBytes/1024 - 1) // there is room
			if tt.wait {
				h.receive(40_000)
			}
			h.number = h.in.next + 1 // one is missing
			h.receive(40_000)
			h.number = h.in.next // and comes
			h.receive(1)
			for range 3 { // acknowledgements: on their way, taken off the queue, in the queue
				for range 40_000 {
					h.queueAckLocked(&agentmsg.Message{Sequence: 1})
				}
				h.takeAcks()
			}
			held := heapBytes() - before
			if held > tt.stated {
				t.Errorf("%d bytes are held, %d are stated", held, tt.stated)
			}
			t.Logf("%d KiB held of %d stated: %d in the window, %d to be read", held>>10, tt.stated>>10, h.out.window.bytes>>10, h.heldLocked()>>10)
			runtime.KeepAlive(h)
		})
	}
}
