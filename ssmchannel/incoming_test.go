package ssmchannel

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"ssm-ssh/ssmchannel/agentmsg"
)

func TestIncoming(t *testing.T) {
	type step struct {
		number int64
		want   verdict
		popped int // messages that pop returns afterwards
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"in order", []step{{0, due, 0}, {1, due, 0}, {2, due, 0}}},
		{"repeated", []step{{0, due, 0}, {0, duplicate, 0}, {1, due, 0}, {0, duplicate, 0}}},
		{"out of order", []step{{2, early, 0}, {1, early, 0}, {0, due, 2}, {3, due, 0}}},
		{"repeated before its turn", []step{{1, early, 0}, {1, duplicate, 0}, {0, due, 1}}},
		{"no room", []step{{1, early, 0}, {2, early, 0}, {3, refused, 0}, {0, due, 2}, {3, due, 0}}},
		{"two gaps", []step{{1, early, 0}, {3, early, 0}, {0, due, 1}, {2, due, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := newIncoming(20) // two payloads of ten bytes
			for i, s := range tt.steps {
				if got := in.received(s.number, agentmsg.Output, make([]byte, 10)); got != s.want {
					t.Fatalf("step %d: verdict %d, want %d", i, got, s.want)
				}
				popped := 0
				for {
					if _, ok := in.pop(); !ok {
						break
					}
					popped++
				}
				if popped != s.popped {
					t.Fatalf("step %d: %d delivered later, want %d", i, popped, s.popped)
				}
			}
			if in.gap() || in.aheadBytes != 0 {
				t.Errorf("%d bytes left", in.aheadBytes)
			}
		})
	}
}

func TestIncomingBoundsMessages(t *testing.T) {
	in := newIncoming(1 << 20)
	for n := int64(1); n <= maxAhead; n++ {
		if in.received(n, agentmsg.Output, []byte("x")) != early {
			t.Fatalf("message %d was not kept", n)
		}
	}
	if in.received(maxAhead+1, agentmsg.Output, []byte("x")) != refused {
		t.Error("no bound")
	}
}

func TestIncomingCopies(t *testing.T) {
	in := newIncoming(100)
	payload := []byte("one")
	in.received(1, agentmsg.Output, payload)
	copy(payload, "two")
	in.received(0, agentmsg.Output, payload)
	if s, _ := in.pop(); string(s.payload) != "one" {
		t.Errorf("kept %q", s.payload)
	}
}

func TestByteQueue(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var q byteQueue
	var want, got bytes.Buffer
	for range 20_000 {
		if random.IntN(2) == 0 {
			p := randomBytes(random.IntN(3000), random.Uint64())
			want.Write(p)
			q.write(p)
		} else {
			p := make([]byte, random.IntN(3000))
			got.Write(p[:q.read(p)])
		}
	}
	rest := make([]byte, q.n)
	got.Write(rest[:q.read(rest)])
	if !bytes.Equal(want.Bytes(), got.Bytes()) {
		t.Error("other bytes came out")
	}
}

func TestByteQueueLetsGo(t *testing.T) {
	var q byteQueue
	q.write(make([]byte, 1<<20))
	q.read(make([]byte, 1<<20))
	if len(q.ring) > keptByteRing {
		t.Errorf("an empty queue keeps %d bytes", len(q.ring))
	}
}

func TestFIFO(t *testing.T) {
	var q fifo[int]
	next, expect := 0, 0
	random := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		if random.IntN(5) < 3 {
			q.push(next)
			next++
		} else if q.len() > 0 {
			if v := q.pop(); v != expect {
				t.Fatalf("popped %d, want %d", v, expect)
			}
			expect++
		}
	}
	if q.len() != next-expect {
		t.Errorf("%d left, want %d", q.len(), next-expect)
	}
}
