package ssmchannel

import "time"

// rttEstimator is the round-trip estimator of RFC 6298 without the 1 s floor of
// its rule 2.4: an acknowledgement here is not delayed on purpose.
type rttEstimator struct {
	smoothed  time.Duration
	variation time.Duration
	latest    time.Duration
	least     time.Duration
	sampled   bool
	// provisional: the next sample replaces all before it.
	provisional bool
}

const (
	// rttGranularity is G of RFC 6298 and the least margin above the round trip.
	// Both peers use 10 ms (plugin: config/config.go, ClockGranularity).
	rttGranularity = 10 * time.Millisecond
	// initialTimeout holds until the first sample; both peers use 200 ms
	// (plugin: config/config.go, DefaultTransmissionTimeout).
	initialTimeout = 200 * time.Millisecond
	// minTimeout keeps scheduling noise from looking like silence.
	minTimeout = 50 * time.Millisecond
	// maxTimeout bounds one wait, backoff included.
	maxTimeout = 5 * time.Second
)

// sample takes the round trip of one message that was sent once (Karn's rule,
// RFC 6298, section 3, is the caller's).
func (r *rttEstimator) sample(rtt time.Duration) {
	rtt = max(rtt, time.Microsecond)
	r.latest = rtt
	if !r.sampled || r.provisional {
		r.smoothed, r.variation, r.least, r.sampled, r.provisional = rtt, rtt/2, rtt, true, false
		return
	}
	r.least = min(r.least, rtt)
	r.variation += ((r.smoothed - rtt).Abs() - r.variation) / 4
	r.smoothed += (rtt - r.smoothed) / 8
}

// timeout is the RTO of RFC 6298.
func (r *rttEstimator) timeout() time.Duration {
	if !r.sampled {
		return initialTimeout
	}
	return min(max(r.smoothed+max(rttGranularity, 4*r.variation), minTimeout), maxTimeout)
}

// early is a timeout with hardly a margin, for the first data of a session: see
// outgoing.opening.
func (r *rttEstimator) early() time.Duration {
	if !r.sampled {
		return minTimeout
	}
	return min(r.reordering()+rttGranularity, maxTimeout)
}

// settling is how long the acknowledgements may hold off that follow a late one.
// A node that comes back from a stall takes what it has in its buffers at its own
// pace: a pause of a few round trips in it is not a loss, and would cost a whole
// window of repeats.
func (r *rttEstimator) settling() time.Duration { return max(r.reordering(), minTimeout) }

// reordering is how long after its sending a message may stay unacknowledged
// although a later one is acknowledged: 9/8 of a round trip, as in RFC 9002,
// section 6.1.2.
func (r *rttEstimator) reordering() time.Duration {
	rtt := max(r.smoothed, r.latest)
	return rtt + rtt/8 + time.Millisecond
}
