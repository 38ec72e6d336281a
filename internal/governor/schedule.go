package governor

import "time"

const (
	firstInterval = 100 * time.Millisecond // between two turns, before anything is known
	leastInterval = 20 * time.Millisecond
	mostInterval  = 10 * time.Second
	// firstBurst turns are to be had at once after a rest, as long as nothing was refused: a play over a
	// few nodes is not held up for the sake of one over hundreds.
	firstBurst = 10
	// memory is how long a refusal counts. Then the schedule begins as if there had been none.
	memory = 10 * time.Minute
	// settling is for how long after a refusal others say nothing new: they are of calls made before.
	settling = time.Second
	// horizon is farther than any turn is given ahead; a due time beyond it is of another clock.
	horizon = 24 * time.Hour
)

// schedule says when which turn is due: turn Next at Due, and each later one Interval after the one
// before. It is plain data; time is passed in.
type schedule struct {
	Next     int64         `json:"next"`
	Due      time.Time     `json:"due"`
	Interval time.Duration `json:"interval"`
	Tail     int64         `json:"tail"`    // the first turn that nobody has taken
	Refused  time.Time     `json:"refused"` // when the rate was lowered last; zero is never
	Stamp    time.Time     `json:"stamp"`   // when this was written
}

// begin is the schedule of somebody who knows nothing.
func begin(now time.Time) schedule {
	return schedule{Due: now.Add(-firstBurst * firstInterval), Interval: firstInterval}
}

// valid reports whether a schedule read from a file can be meant at that time.
func (s *schedule) valid(now time.Time) bool {
	return s.Interval >= leastInterval && s.Interval <= mostInterval &&
		s.Next >= 0 && s.Tail >= 0 && s.Next-s.Tail < 1<<32 && s.Tail-s.Next < 1<<32 &&
		s.Due.Before(now.Add(horizon)) && s.Due.After(now.Add(-memory-horizon)) && !s.Refused.After(now.Add(time.Minute))
}

// follow moves a schedule with a clock that was put back, by as much.
func (s *schedule) follow(now time.Time) {
	if back := now.Sub(s.Stamp); back < 0 && back > -horizon {
		s.Due = s.Due.Add(back)
		if !s.Refused.IsZero() {
			s.Refused = s.Refused.Add(back)
		}
	}
}

// due returns when a turn is due.
func (s *schedule) due(turn int64) time.Time {
	return s.Due.Add(time.Duration(turn-s.Next) * s.Interval)
}

// take gives the next free turn.
func (s *schedule) take(now time.Time) int64 {
	burst := time.Duration(firstBurst)
	if !s.Refused.IsZero() {
		burst = 1
	}
	if earliest := now.Add(-burst * s.Interval); s.due(s.Tail).Before(earliest) {
		s.Next, s.Due = s.Tail, earliest // a rest isn't saved up beyond the burst
	}
	s.Tail++
	return s.Tail - 1
}

// advance moves Next to the first turn that isn't due yet, so that a change concerns only turns to come.
func (s *schedule) advance(now time.Time) {
	if late := now.Sub(s.Due); late >= 0 {
		turns := int64(late/s.Interval) + 1
		s.Due = s.due(s.Next + turns)
		s.Next += turns
	}
}

// granted speeds up: to twice the rate within a second of calls while nothing was ever refused, by a
// tenth within a second afterwards.
func (s *schedule) granted(now time.Time) {
	s.advance(now)
	gain := s.Interval
	if !s.Refused.IsZero() {
		gain /= 10
	}
	s.Interval = max(leastInterval, time.Duration(float64(s.Interval)/(1+gain.Seconds())))
}

// refused slows down, once for all calls that were under way, and returns when the refused call may be
// made again: in the place of the turn that would have come next, with which all later ones move.
func (s *schedule) refused(now time.Time) time.Time {
	s.advance(now)
	if now.Sub(s.Refused) > max(settling, 2*s.Interval) {
		s.Interval = min(mostInterval, s.Interval*5/4)
		s.Refused = now
	}
	again := s.Due
	s.Due = s.Due.Add(s.Interval)
	return again
}
