package lab

import (
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// FaultSet is everything that can be wrong at a moment; the zero value is a healthy world. The
// JSON form is what the control endpoint takes.
type FaultSet struct {
	// API faults by operation name; "*" is any operation without a fault of its own.
	API map[string]APIFault `json:"api,omitempty"`

	ListLagMillis    int  `json:"list_lag_ms,omitempty"`        // how long DescribeSessions doesn't know of a new session
	EmptyResumeToken bool `json:"empty_resume_token,omitempty"` // ResumeSession answers as for an ended session
	TokenMillis      int  `json:"token_ms,omitempty"`           // life of a token; 0 is unlimited
	RefuseToken      bool `json:"refuse_token,omitempty"`       // the gateway closes right after the open message
	RequireSignature bool `json:"require_signature,omitempty"`  // the gateway refuses unsigned upgrades

	RefuseAPI     bool `json:"refuse_api,omitempty"` // reset new TCP connections
	RefuseGateway bool `json:"refuse_gateway,omitempty"`
	RefuseAgent   bool `json:"refuse_agent,omitempty"`
	StallAPI      bool `json:"stall_api,omitempty"` // black hole: sockets stay open, nothing arrives
	StallGateway  bool `json:"stall_gateway,omitempty"`
	StallAgent    bool `json:"stall_agent,omitempty"`

	QueueMessages int  `json:"queue_messages,omitempty"` // kept for an absent peer instead of dropped
	FragmentBytes int  `json:"fragment_bytes,omitempty"` // to the client: continuation frames of this size
	TextFrames    bool `json:"text_frames,omitempty"`    // to the client: text instead of binary frames
	LongHeader    bool `json:"long_header,omitempty"`    // channel_closed with 116 bytes of header instead of 112

	Up   PathFaults `json:"up,omitzero"`   // client to agent
	Down PathFaults `json:"down,omitzero"` // agent to client

	CorruptDigest float64 `json:"corrupt_digest,omitempty"` // probability per message to the client of a spoiled copy before it
	Garbage       float64 `json:"garbage,omitempty"`        // of a frame that is no agent message, one of several kinds
	UnknownType   float64 `json:"unknown_type,omitempty"`   // of a message of a type nobody knows
	Oversized     float64 `json:"oversized,omitempty"`      // of a frame of 1 MiB
}

// APIFault is what a call of one operation meets.
type APIFault struct {
	Code    string `json:"code,omitempty"`    // "ThrottlingException", "AccessDeniedException", …
	Status  int    `json:"status,omitempty"`  // HTTP status; 0 is the usual one of the code
	Message string `json:"message,omitempty"` // empty is the usual text
	Times   int    `json:"times,omitempty"`   // calls that meet it; 0 is all
	// PerSecond is a rate that is served; only what comes faster meets the fault. A second's calls may come
	// at once.
	PerSecond   float64 `json:"per_second,omitempty"`
	DelayMillis int     `json:"delay_ms,omitempty"`     // before anything else
	Hang        bool    `json:"hang,omitempty"`         // no answer until the caller gives up
	LateMillis  int     `json:"late_ms,omitempty"`      // after the operation is done, before its answer
	LoseAnswer  bool    `json:"lose_answer,omitempty"`  // the operation is done, the connection dies before the answer
	Done        bool    `json:"done,omitempty"`         // the operation is done, then refused with Code all the same
	EmptyAnswer bool    `json:"empty_answer,omitempty"` // 200 with an empty body
}

// PathFaults are the probabilities, 0 to 1, of what befalls a message in one direction.
type PathFaults struct {
	Data MessageFaults `json:"data,omitzero"`
	Ack  MessageFaults `json:"ack,omitzero"`
}

// MessageFaults are the probabilities for one kind of message. A reordered message is overtaken by
// the next ReorderBy messages of its direction (1 when zero).
type MessageFaults struct {
	Loss      float64 `json:"loss,omitempty"`
	Dup       float64 `json:"dup,omitempty"`
	Reorder   float64 `json:"reorder,omitempty"`
	ReorderBy int     `json:"reorder_by,omitempty"`
}

// Faults is the switchboard of a running lab. All methods may be called at any time.
type Faults struct {
	lab *Lab

	now atomic.Pointer[FaultSet] // published; never changed in place

	mu    sync.Mutex
	left  map[string]int // calls that an API fault with Times still meets
	rates map[string]*rate
}

// rate is what is left of a served rate, in calls.
type rate struct {
	tokens float64
	since  time.Time
}

// serves takes a call if there is one left.
func (r *rate) serves(perSecond float64, now time.Time) bool {
	most := max(1, perSecond)
	r.tokens = min(most, r.tokens+perSecond*now.Sub(r.since).Seconds())
	r.since = now
	if r.tokens < 1 {
		return false
	}
	r.tokens--
	return true
}

func newFaults(l *Lab, set FaultSet) *Faults {
	f := &Faults{lab: l}
	f.setLocked(set)
	return f
}

// Set replaces all faults.
func (f *Faults) Set(set FaultSet) {
	f.mu.Lock()
	f.setLocked(set)
	f.mu.Unlock()
	f.apply(set)
}

// Update changes some faults.
func (f *Faults) Update(change func(*FaultSet)) {
	f.mu.Lock()
	set := f.Get()
	change(&set)
	f.setLocked(set)
	f.mu.Unlock()
	f.apply(set)
}

// FailAPI makes the next calls of an operation fail with code; times 0 means all of them.
func (f *Faults) FailAPI(operation, code string, times int) {
	f.Update(func(s *FaultSet) {
		if s.API == nil {
			s.API = make(map[string]APIFault)
		}
		s.API[operation] = APIFault{Code: code, Times: times}
	})
}

// Clear heals everything.
func (f *Faults) Clear() { f.Set(FaultSet{}) }

// Get returns the faults that are set.
func (f *Faults) Get() FaultSet {
	set := *f.now.Load()
	set.API = maps.Clone(set.API)
	return set
}

func (f *Faults) setLocked(set FaultSet) {
	f.now.Store(&set)
	f.left, f.rates = make(map[string]int), make(map[string]*rate)
	for name, fault := range set.API {
		f.left[name] = fault.Times
		f.rates[name] = &rate{tokens: max(1, fault.PerSecond), since: time.Now()}
	}
}

// apply hands the switches of the hops over to them.
func (f *Faults) apply(set FaultSet) {
	l := f.lab
	l.apiHop.setRefusing(set.RefuseAPI)
	l.gatewayHop.setRefusing(set.RefuseGateway)
	l.agentHop.setRefusing(set.RefuseAgent)
	l.apiHop.setStalled(set.StallAPI)
	l.gatewayHop.setStalled(set.StallGateway)
	l.agentHop.setStalled(set.StallAgent)
}

// api returns the fault that a call of operation meets, and whether there is one.
func (f *Faults) api(operation string) (APIFault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range []string{operation, "*"} {
		fault, ok := f.now.Load().API[name]
		if !ok {
			continue
		}
		if fault.PerSecond > 0 && f.rates[name].serves(fault.PerSecond, time.Now()) {
			continue
		}
		if fault.Times > 0 {
			if f.left[name] == 0 {
				continue
			}
			f.left[name]--
		}
		return fault, true
	}
	return APIFault{}, false
}

// tokenLife returns how long a token is good for; 0 is for ever.
func (f *Faults) tokenLife() time.Duration {
	return time.Duration(f.now.Load().TokenMillis) * time.Millisecond
}

// CutClients resets the clients' connections to the gateway; sessions stay resumable.
func (f *Faults) CutClients() { f.lab.gatewayHop.cut() }

// CutAgents resets the workers' connections to the gateway; the workers reconnect.
func (f *Faults) CutAgents() { f.lab.agentHop.cut() }

// ByeClients closes the clients' websockets as the service does about once an hour.
func (f *Faults) ByeClients() {
	for _, s := range f.lab.sessions.all() {
		s.channel.bye(s.channel.clientPeer())
	}
}

// ByeAgents does the same at the workers' side.
func (f *Faults) ByeAgents() {
	for _, s := range f.lab.sessions.all() {
		s.channel.bye(s.channel.agentPeer())
	}
}

// Expire ends every live session as the idle time-out does.
func (f *Faults) Expire() {
	for _, s := range f.lab.sessions.all() {
		f.lab.expire(s, idleNotice)
	}
}

// Terminate ends every live session as somebody's TerminateSession does: no reason is given.
func (f *Faults) Terminate() {
	for _, s := range f.lab.sessions.all() {
		f.lab.terminate(s, "")
	}
}

// hit throws the dice for a probability.
func hit(p float64) bool { return p > 0 && rand.Float64() < p }
