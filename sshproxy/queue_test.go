package sshproxy

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// fakeNode counts sessions as sshd does: some go on counting for a while after their channel's end.
type fakeNode struct {
	max    int
	linger time.Duration

	mu      sync.Mutex
	open    int
	peak    int
	refused int
}

const nodeRoundTrip = 10 * time.Millisecond

// Done and Close are for connections beyond the first: see fakeConnection.
func (n *fakeNode) Done() <-chan struct{} { return nil }
func (n *fakeNode) Close() error          { return nil }

func (n *fakeNode) OpenSession(ctx context.Context) (*Session, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(nodeRoundTrip):
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.open >= n.max {
		n.refused++
		return nil, &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "open failed"}
	}
	n.open++
	n.peak = max(n.peak, n.open)
	ch := &fakeChannel{node: n}
	ch.session = &Session{ch: ch, closed: make(chan struct{})}
	return ch.session, nil
}

func (n *fakeNode) close() {
	time.Sleep(n.linger)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open--
}

func (n *fakeNode) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open
}

// fakeChannel is an open channel that nothing was asked of.
type fakeChannel struct {
	ssh.Channel
	node    *fakeNode
	session *Session
}

// Close ends the channel at both ends.
func (c *fakeChannel) Close() error {
	c.node.close()
	c.session.ended()
	return nil
}

func TestQueueServesAllInOrder(t *testing.T) {
	tests := []struct {
		name        string
		max         int
		spares      int
		linger      time.Duration
		clients     int
		work        time.Duration
		within      time.Duration
		mostRefused int
	}{
		{name: "room for all", max: 100, clients: 50, work: time.Second, within: 2 * time.Second},
		{name: "ten at a time", max: 10, clients: 200, work: time.Second, within: 25 * time.Second, mostRefused: 250},
		{name: "one at a time", max: 1, clients: 20, work: 100 * time.Millisecond, within: 4 * time.Second, mostRefused: 60},
		{name: "ten at a time, with spares", max: 10, spares: 2, clients: 200, work: time.Second, within: 25 * time.Second, mostRefused: 250},
		{name: "one at a time, with spares", max: 1, spares: 2, clients: 20, work: 100 * time.Millisecond, within: 4 * time.Second, mostRefused: 60},
		{name: "sshd lags behind", max: 10, linger: 150 * time.Millisecond, clients: 100, work: 100 * time.Millisecond,
			within: 5 * time.Second, mostRefused: 1500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &fakeNode{max: tt.max, linger: tt.linger}
				q := newSessionQueue(n, tt.spares, nil)
				start := time.Now()
				var wg sync.WaitGroup
				for range tt.clients {
					wg.Go(func() {
						s, err := q.acquire(t.Context())
						if err != nil {
							t.Error(err)
							return
						}
						time.Sleep(tt.work)
						wg.Go(n.close)
						s.ended()
					})
				}
				wg.Wait()
				took := time.Since(start)
				q.close()
				if took > tt.within {
					t.Errorf("took %v, want at most %v", took, tt.within)
				}
				if n.refused > tt.mostRefused || n.peak > tt.max {
					t.Errorf("%d refused, %d at once", n.refused, n.peak)
				}
				if len(q.waiting) != 0 || q.opening != 0 || q.lanes[0].opened != 0 || n.open != 0 {
					t.Errorf("left: %d waiting, %d being opened, %d open, %d at the node", len(q.waiting), q.opening, q.lanes[0].opened, n.open)
				}
			})
		})
	}
}

func TestQueueIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{max: 2}
		q := newSessionQueue(n, 0, nil)
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				s, err := q.acquire(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				time.Sleep(time.Second)
				s.discard()
			})
			time.Sleep(time.Millisecond) // so that they come in this order
		}
		wg.Wait()
		// Two at a time end together, and either may be first.
		for at, i := range order {
			if at-i > 2 || i-at > 2 {
				t.Fatalf("served in the order %v", order)
			}
		}
	})
}

func TestQueueRefusesWhereNothingIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newSessionQueue(&fakeNode{}, 2, nil)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := q.acquire(t.Context())
				var refused *ssh.OpenChannelError
				if !errors.As(err, &refused) {
					t.Errorf("got %v, want the refusal", err)
				}
			})
		}
		wg.Wait()
	})
}

func TestQueueLearnsALargerLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{max: 3}
		q := newSessionQueue(n, 0, nil)
		var sessions []*Session
		for range 3 {
			s, err := q.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			sessions = append(sessions, s)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			s, err := q.acquire(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			s.discard()
		})
		synctest.Wait()
		time.Sleep(time.Second / 2)
		n.mu.Lock()
		n.max = 4 // as when a command dies that had outlived its channel
		n.mu.Unlock()
		wg.Wait()
		for _, s := range sessions {
			s.discard()
		}
		q.close()
	})
}

func TestQueueDropsThoseWhoLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{max: 1}
		q := newSessionQueue(n, 0, nil)
		first, err := q.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if _, err := q.acquire(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		time.Sleep(time.Second / 3)
		cancel()
		wg.Wait()
		first.discard()
		second, err := q.acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		second.discard()
		q.close()
		if len(q.waiting) != 0 || q.lanes[0].opened != 0 {
			t.Errorf("left: %d waiting, %d open", len(q.waiting), q.lanes[0].opened)
		}
	})
}

// roundTrip waits until all that is on its way has arrived.
func roundTrip() {
	time.Sleep(nodeRoundTrip)
	synctest.Wait()
}

// acquireIn fails the test when a channel takes another time than want.
func acquireIn(t *testing.T, q *sessionQueue, want time.Duration) *Session {
	t.Helper()
	began := time.Now()
	s, err := q.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took != want {
		t.Errorf("a channel after %v, want %v", took, want)
	}
	return s
}

func TestSparesSaveARoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{max: 10}
		q := newSessionQueue(n, 2, nil)
		q.fill()
		roundTrip()
		for range 5 {
			one, two := acquireIn(t, q, 0), acquireIn(t, q, 0)
			roundTrip()
			one.discard()
			two.discard()
		}
		if got := n.count(); got != 2 {
			t.Errorf("%d channels open, want the two spares", got)
		}
		q.close()
		if got := n.count(); got != 0 {
			t.Errorf("%d channels left open", got)
		}
	})
}

func TestSparesGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{max: 3}
		q := newSessionQueue(n, 2, nil)
		q.fill()
		roundTrip()
		var sessions []*Session
		for range 3 { // the third takes the refill that is on its way
			sessions = append(sessions, acquireIn(t, q, min(time.Duration(len(sessions)/2), 1)*nodeRoundTrip))
		}
		time.Sleep(10 * nodeRoundTrip)
		if n.count() != 3 {
			t.Errorf("%d channels open, %d refused", n.count(), n.refused)
		}
		sessions[0].discard()
		roundTrip()
		sessions[0] = acquireIn(t, q, 0)
		for _, s := range sessions {
			s.discard()
		}
		q.close()
	})
}

func TestLostSparesAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{max: 10}
		q := newSessionQueue(n, 1, nil)
		q.fill()
		roundTrip()
		q.ready[0].session.discard() // as by the node
		time.Sleep(time.Minute)
		if len(q.ready) != 0 || n.count() != 0 {
			t.Errorf("%d spares, %d channels at the node", len(q.ready), n.count())
		}
		acquireIn(t, q, nodeRoundTrip).discard()
		roundTrip()
		acquireIn(t, q, 0).discard()
		q.close()
	})
}

func TestAChannelWhoseClientLeftIsASpare(t *testing.T) {
	for spares := range 2 {
		synctest.Test(t, func(t *testing.T) {
			n := &fakeNode{max: 10}
			q := newSessionQueue(n, spares, nil)
			ctx, cancel := context.WithTimeout(t.Context(), nodeRoundTrip/2)
			defer cancel()
			if _, err := q.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			roundTrip()
			if got := n.count(); got != spares {
				t.Errorf("%d channels open, want %d", got, spares)
			}
			q.close()
		})
	}
}

// TestSparesStopAtARefusal: a node that grants no session isn't asked again and again.
func TestSparesStopAtARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{}
		q := newSessionQueue(n, 2, nil)
		q.fill()
		time.Sleep(time.Minute)
		q.close()
		if n.refused > 2 {
			t.Errorf("asked %d times", n.refused)
		}
	})
}
