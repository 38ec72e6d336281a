package lab

import "slices"

// A Step belongs to the end of a session.
type Step string

// The steps that a session may go through at its end.
const (
	StepFlag      Step = "flag"             // the client's flag of the end was handled, and so was all input before it
	StepTerminate Step = "TerminateSession" // was called
	StepClosed    Step = "channel_closed"   // is about to be sent to the client
	StepSocket    Step = "socket"           // a websocket of the client's was closed, by whomever
)

// stepsAtMost bounds what is kept of a session whose websocket is replaced again and again.
const stepsAtMost = 64

// note records a step.
func (s *session) note(step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.steps) == stepsAtMost {
		s.steps = slices.Delete(s.steps, 0, 1)
	}
	s.steps = append(s.steps, step)
}

// Steps returns the steps that each session has gone through, in order; the oldest session comes first.
func (l *Lab) Steps() [][]Step {
	var all [][]Step
	for _, s := range l.sessions.all() {
		s.mu.Lock()
		all = append(all, slices.Clone(s.steps))
		s.mu.Unlock()
	}
	return all
}
