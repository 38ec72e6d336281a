package sshproxy

import (
	"context"
	"errors"
	"time"
)

// flushTime is how long clients may take to read what had arrived when the connection was lost.
const flushTime = 2 * time.Second

// shutdown takes everything down from the top: no new clients, then the sessions, then the
// connection below them. It waits for all of it.
func (m *Master) shutdown() error {
	m.end()
	m.mu.Lock()
	m.stopTimerLocked()
	m.restLocked(false)
	m.listener.stop()
	for s := range m.clients {
		s.abort()
	}
	m.mu.Unlock()
	m.forwards.Stop()
	err := m.client.Close() // a node that doesn't answer would keep its channels open
	m.queue.stop()          // the same for its other connections
	m.forwards.Close()
	m.wg.Wait()
	m.queue.close()
	return errors.Join(err, m.listener.Close(), m.poller.Close())
}

// flush lets the clients read what the node had sent before the connection was lost.
func (m *Master) flush() {
	m.stopListening()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-m.over:
	case <-timer.C:
	}
}

// outlive has sessions on other connections go on, when the first is lost for a reason of its own, until
// they are vacant. What else clients had, has ended.
func (m *Master) outlive(ctx context.Context, vacant <-chan struct{}) {
	m.forwards.Stop()
	m.mu.Lock()
	for s := range m.clients {
		if p := s.current(); p == nil || !p.ridesOnAnother() {
			s.abort()
		}
	}
	m.mu.Unlock()
	select {
	case <-vacant:
		m.flush()
	case <-m.over:
	case <-ctx.Done():
	}
}

// end makes Serve return.
func (m *Master) end() { m.overOnce.Do(func() { close(m.over) }) }

func (m *Master) isOver() bool {
	select {
	case <-m.over:
		return true
	default:
		return false
	}
}

// stopListening removes the socket. Clients that have connected by then are served, so none is sent
// away in the middle; when the last has gone the master ends.
func (m *Master) stopListening() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listener.stop()
}
