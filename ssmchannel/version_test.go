package ssmchannel

import "testing"

func TestPortModeByVersions(t *testing.T) {
	tests := []struct {
		name, agent, client string
		mux, keepAlive      bool
	}{
		{"present", "3.3.987.0", "1.3.0.0", true, false},
		{"last agent without mux", "3.0.196.0", "1.3.0.0", false, true},
		{"first agent with mux", "3.0.197.0", "1.3.0.0", true, true},
		{"last agent with keepalive", "3.1.1511.0", "1.3.0.0", true, true},
		{"first agent without keepalive", "3.1.1512.0", "1.3.0.0", true, false},
		{"last client with keepalive", "3.3.987.0", "1.2.331.0", true, true},
		{"first client without keepalive", "3.3.987.0", "1.2.332.0", true, false},
		{"first client with mux", "3.3.987.0", "1.1.70", true, true},
		{"client before mux", "3.3.987.0", "1.1.69.9", false, true},
		{"client's numbers are no text", "3.3.987.0", "1.10.0.0", true, false},
		{"client's text is no number", "3.3.987.0", "dev", true, false},
		{"empty client", "3.3.987.0", "", false, true},
		{"agent with three parts", "3.3.987", "1.3.0.0", false, true},
		{"agent that is no number", "3.3.x.0", "1.3.0.0", false, true},
		{"unknown agent", "", "1.3.0.0", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := multiplexes(tt.agent, tt.client); got != tt.mux {
				t.Errorf("multiplexes: %v", got)
			}
			if got := keepsAlive(tt.agent, tt.client); got != tt.keepAlive {
				t.Errorf("keeps alive: %v", got)
			}
		})
	}
}

func FuzzVersions(f *testing.F) {
	f.Add("3.3.987.0", "3.0.196.0")
	f.Add("1.2", "1.2.0")
	f.Add("", "...")
	f.Fuzz(func(t *testing.T, a, b string) {
		if agentAfter(a, b) && agentAfter(b, a) {
			t.Errorf("%q and %q are above each other", a, b)
		}
		if x, y := compareClient(a, b), compareClient(b, a); (x < 0) != (y > 0) || (x == 0) != (y == 0) {
			t.Errorf("%q and %q: %d and %d", a, b, x, y)
		}
	})
}
