package sshproxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// fakeServer makes connections, each of which counts its sessions for itself.
type fakeServer struct {
	max    int
	refuse error         // in place of a connection
	slow   time.Duration // to make one

	mu          sync.Mutex
	connections []*fakeConnection
	asked       int
	making      int
	atOnce      int // made at the same time
}

func (s *fakeServer) another(ctx context.Context) (connection, error) {
	s.mu.Lock()
	s.asked++
	s.making++
	s.atOnce = max(s.atOnce, s.making)
	s.mu.Unlock()
	select {
	case <-time.After(s.slow):
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.making--
	if s.refuse != nil || ctx.Err() != nil {
		return nil, errors.Join(s.refuse, ctx.Err())
	}
	return s.connectLocked(), nil
}

func (s *fakeServer) connectLocked() *fakeConnection {
	c := &fakeConnection{max: s.max, done: make(chan struct{}), channels: make(map[*laneChannel]bool)}
	s.connections = append(s.connections, c)
	return c
}

// queue is one over a first connection of the server.
func (s *fakeServer) queue(spares int) *sessionQueue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return newSessionQueue(s.connectLocked(), spares, s.another)
}

// alive counts the connections that are open.
func (s *fakeServer) alive() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.connections {
		if !c.over() {
			n++
		}
	}
	return n
}

// fakeConnection ends its channels with itself.
type fakeConnection struct {
	max  int
	done chan struct{}

	mu       sync.Mutex
	channels map[*laneChannel]bool
}

func (c *fakeConnection) over() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *fakeConnection) OpenSession(context.Context) (*Session, error) {
	time.Sleep(nodeRoundTrip)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over():
		return nil, io.ErrUnexpectedEOF
	case len(c.channels) >= c.max:
		return nil, &ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "open failed"}
	}
	ch := &laneChannel{connection: c}
	ch.session = &Session{ch: ch, closed: make(chan struct{})}
	c.channels[ch] = true
	return ch.session, nil
}

func (c *fakeConnection) Done() <-chan struct{} { return c.done }

func (c *fakeConnection) Close() error {
	c.mu.Lock()
	if !c.over() {
		close(c.done)
	}
	var open []*laneChannel
	for ch := range c.channels {
		open = append(open, ch)
	}
	c.mu.Unlock()
	for _, ch := range open {
		_ = ch.Close()
	}
	return nil
}

// laneChannel is an open channel that nothing was asked of.
type laneChannel struct {
	ssh.Channel
	connection *fakeConnection
	session    *Session
}

func (ch *laneChannel) Close() error {
	ch.connection.mu.Lock()
	open := ch.connection.channels[ch]
	delete(ch.connection.channels, ch)
	ch.connection.mu.Unlock()
	if open {
		ch.session.ended()
	}
	return nil
}

// connectionOf is where a session is.
func connectionOf(s *Session) *fakeConnection { return s.ch.(*laneChannel).connection }

// acquireAll takes n sessions at once.
func acquireAll(t *testing.T, q *sessionQueue, n int) []*Session {
	t.Helper()
	sessions := make([]*Session, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			var err error
			if sessions[i], err = q.acquire(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return sessions
}

func TestQueueGrowsWhereItCan(t *testing.T) {
	for _, spares := range []int{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			server := &fakeServer{max: 10, slow: 100 * time.Millisecond}
			q := server.queue(spares)
			q.fill()
			roundTrip()
			began := time.Now()
			sessions := acquireAll(t, q, 40)
			if took := time.Since(began); took > time.Second {
				t.Errorf("40 sessions after %v", took)
			}
			if n := server.alive(); n != 4 || server.atOnce != 1 {
				t.Errorf("%d connections, %d made at once", n, server.atOnce)
			}
			for _, s := range sessions {
				s.discard()
			}
			time.Sleep(laneIdle - time.Second)
			if n := server.alive(); n != 4 {
				t.Errorf("%d connections while they may be needed again", n)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if n := server.alive(); n != 1 {
				t.Errorf("%d connections are kept", n)
			}
			if len(q.ready) != spares || len(server.connections[0].channels) != spares {
				t.Errorf("%d spares, %d channels", len(q.ready), len(server.connections[0].channels))
			}
			q.close()
		})
	}
}

// TestQueueGrowsNoFurther: beyond the bound clients wait, in turn.
func TestQueueGrowsNoFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{max: 2}
		q := server.queue(2)
		var wg sync.WaitGroup
		for range 10 * maxLanes {
			wg.Go(func() {
				s, err := q.acquire(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Second)
				s.discard()
			})
		}
		began := time.Now()
		wg.Wait()
		if n := server.alive(); n > maxLanes {
			t.Errorf("%d connections", n)
		}
		if took := time.Since(began); took < 5*time.Second || took > 9*time.Second {
			t.Errorf("it took %v", took)
		}
		q.close()
		if n := server.alive(); n != 1 {
			t.Errorf("%d connections after the end", n)
		}
	})
}

// TestQueueWaitsWhereItCannotGrow: who can't be had doesn't hold the queue up, and isn't asked for ever.
func TestQueueWaitsWhereItCannotGrow(t *testing.T) {
	tests := []struct {
		name   string
		refuse error
		most   int
	}{
		{"authentication", &TextError{Text: "denied", Err: errAuthentication}, 1},
		{"network", io.ErrUnexpectedEOF, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &fakeServer{max: 1, refuse: tt.refuse}
				q := server.queue(1)
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						s, err := q.acquire(t.Context())
						if err != nil {
							t.Error(err)
							return
						}
						time.Sleep(time.Second)
						s.discard()
					})
				}
				began := time.Now()
				wg.Wait()
				if took := time.Since(began); took > 24*time.Second {
					t.Errorf("it took %v", took)
				}
				if server.asked < 1 || server.asked > tt.most {
					t.Errorf("asked %d times", server.asked)
				}
				q.close()
			})
		})
	}
}

// TestQueueOutlivesAConnection: the sessions of a lost one end, the others stay, and whoever comes is
// served by those.
func TestQueueOutlivesAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{max: 2}
		q := server.queue(0)
		sessions := acquireAll(t, q, 6)
		lost := server.connections[1]
		_ = lost.Close()
		synctest.Wait()
		for _, s := range sessions {
			ended := true
			select {
			case <-s.closed:
			default:
				ended = false
			}
			if on := connectionOf(s); ended != (on == lost) {
				t.Errorf("session ended: %v, its connection is the lost one: %v", ended, on == lost)
			}
		}
		began := time.Now()
		more := acquireAll(t, q, 1)
		if took := time.Since(began); took < growRest || took > growRest+2*time.Second {
			t.Errorf("a new one after %v", took)
		}
		for _, s := range append(sessions, more...) {
			s.discard()
		}
		q.close()
	})
}

// TestQueueWithoutItsFirstConnection: whoever waits is told, and what is on others goes on.
func TestQueueWithoutItsFirstConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{max: 2}
		q := server.queue(1)
		sessions := acquireAll(t, q, 4)
		server.refuse = io.ErrUnexpectedEOF
		told := make(chan error, 1)
		go func() {
			_, err := q.acquire(t.Context())
			told <- err
		}()
		synctest.Wait()
		_ = server.connections[0].Close()
		vacant := q.abandon(errAuthentication)
		synctest.Wait()
		if err := <-told; err == nil {
			t.Error("somebody was let in")
		}
		for _, s := range sessions {
			select {
			case <-vacant:
				t.Error("vacant too early")
			default:
			}
			s.discard()
			synctest.Wait()
		}
		<-vacant
		if _, err := q.acquire(t.Context()); !errors.Is(err, errAuthentication) {
			t.Errorf("got %v", err)
		}
		q.close()
	})
}

// TestQueueDropsAUselessConnection: one on which nothing can be opened doesn't hold anybody up.
func TestQueueDropsAUselessConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{max: 1}
		q := server.queue(0)
		first := acquireAll(t, q, 1)[0]
		server.max = 0 // of those to come
		got := make(chan *Session)
		go func() {
			s, err := q.acquire(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- s
		}()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if server.asked != 1 || server.alive() != 1 {
			t.Errorf("asked %d times, %d connections", server.asked, server.alive())
		}
		first.discard()
		(<-got).discard()
		q.close()
	})
}

// TestQueueGivesUpAConnectionUnderWay: the end doesn't wait for a server that doesn't answer.
func TestQueueGivesUpAConnectionUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{max: 1, slow: time.Hour}
		q := server.queue(0)
		first := acquireAll(t, q, 1)[0]
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		began := time.Now()
		first.discard()
		q.close()
		if took := time.Since(began); took > time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}
