package ssmchannel

import (
	"testing"
	"time"
)

// arrivals are messages of one size at one distance.
type arrivals struct {
	messages int
	payload  int
	gap      time.Duration
}

func TestModeration(t *testing.T) {
	const pace = time.Millisecond
	full := arrivals{bulkMessages + 1, fullPayload, pace} // the first follows nothing
	tests := []struct {
		name string
		come []arrivals
		want time.Duration
	}{
		{"nothing yet", nil, 0},
		{"keystrokes", []arrivals{{100, 36, 50 * time.Millisecond}}, 0},
		{"a screenful", []arrivals{{8, fullPayload, pace}, {1, 700, pace}}, 0},
		{"full ones, but now and then", []arrivals{{100, fullPayload, 2 * bulkGap}}, 0},
		{"small ones at the agent's pace", []arrivals{{100, 1000, pace}}, 0},
		{"a bulk", []arrivals{full}, readPause},
		{"one message too few", []arrivals{{bulkMessages, fullPayload, pace}}, 0},
		{"a bulk that is there already", []arrivals{full, {3, fullPayload, 20 * time.Microsecond}}, 0},
		{"a bulk that is over", []arrivals{full, {1, 10, pace}}, 0},
		{"a bulk after a stop", []arrivals{full, {1, fullPayload, time.Second}}, 0},
		{"a bulk again", []arrivals{full, {1, 10, pace}, full}, readPause},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m moderation
			now := time.Now()
			for _, a := range tt.come {
				for range a.messages {
					now = now.Add(a.gap)
					m.took(now, a.payload)
				}
			}
			if got := m.pause(); got != tt.want {
				t.Errorf("pause %v, want %v", got, tt.want)
			}
		})
	}
}

// After a pause all that has gathered is taken at once, and only when there is no more the next follows.
func TestModerationTakesWhatHasGathered(t *testing.T) {
	var m moderation
	now := time.Now()
	take := func(gap time.Duration) time.Duration {
		now = now.Add(gap)
		m.took(now, fullPayload)
		return m.pause()
	}
	for take(time.Millisecond) == 0 {
	}
	for range 3 {
		now = now.Add(readPause)
		m.paused(now)
		for i := range 8 {
			if p := take(30 * time.Microsecond); p != 0 {
				t.Fatalf("pause before message %d that was there", i)
			}
		}
		if p := take(700 * time.Microsecond); p != readPause {
			t.Fatalf("pause %v after the one that was waited for", p)
		}
	}
}
