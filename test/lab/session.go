package lab

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"sync"
	"time"
)

// Session states as DescribeSessions names them.
const (
	stateConnecting  = "Connecting"
	stateConnected   = "Connected"
	stateTerminating = "Terminating"
	stateTerminated  = "Terminated"
	stateFailed      = "Failed"
)

// idleNotice and ageNotice are the Output of channel_closed when the service ends a session.
const (
	idleNotice = "Session timed out: no input from the client within the idle session timeout."
	ageNotice  = "Session timed out: the maximum session duration is reached."
)

// A session is what StartSession makes: an id, a worker, and a data channel.
type session struct {
	id       string
	target   string
	document string
	owner    string
	reason   string
	cell     string // cell-number of the stream URL, with the characters that trap re-encoders
	params   map[string]string
	started  time.Time
	node     *Node
	channel  *channel

	mu     sync.Mutex
	state  string
	ended  time.Time
	tokens map[string]token // single use; of the client's and of the agent's side
	idle   *time.Timer
	age    *time.Timer
	steps  []Step
}

type token struct {
	issued time.Time
	agent  bool
}

// newToken issues a token for one connection of one side.
func (s *session) newToken(agent bool) string {
	value := randomHex(40)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[value] = token{issued: time.Now(), agent: agent}
	return value
}

// redeem uses a token up and says whether it was good for that side.
func (s *session) redeem(value string, agent bool, life time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens[value]
	if !ok || t.agent != agent || s.overLocked() {
		return false
	}
	if life > 0 && time.Since(t.issued) > life {
		return false
	}
	delete(s.tokens, value)
	return true
}

// touch restarts the idle timer: the client has sent input or resumed.
func (s *session) touch(limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil && !s.overLocked() {
		s.idle.Reset(limit)
	}
}

// connected records that the worker has joined.
func (s *session) connected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateConnecting {
		s.state = stateConnected
	}
}

// terminating records that the end has been asked for; false if it had been before.
func (s *session) terminating() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overLocked() || s.state == stateTerminating {
		return false
	}
	s.state = stateTerminating
	return true
}

// over records the final state; only the first one counts.
func (s *session) over(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overLocked() {
		return
	}
	s.state, s.ended = state, time.Now()
	for _, t := range []*time.Timer{s.idle, s.age} {
		if t != nil {
			t.Stop()
		}
	}
}

func (s *session) status() (state string, ended time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.ended
}

func (s *session) overLocked() bool { return s.state == stateTerminated || s.state == stateFailed }

// live says whether the session counts as left behind, and whether its end is under way.
func (s *session) live() (live, ending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.overLocked(), s.state == stateTerminating
}

// registry holds all sessions of the lab, the ended ones too: they are the history.
type registry struct {
	mu   sync.Mutex
	byID map[string]*session
	list []*session
}

func (r *registry) add(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = make(map[string]*session)
	}
	r.byID[s.id] = s
	r.list = append(r.list, s)
}

func (r *registry) find(id string) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// all returns the sessions, oldest first.
func (r *registry) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// randomHex returns n hex digits.
func randomHex(n int) string {
	b := make([]byte, (n+1)/2)
	rand.Read(b) // never fails: crypto/rand
	return hex.EncodeToString(b)[:n]
}
