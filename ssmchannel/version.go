package ssmchannel

import (
	"slices"
	"strconv"
	"strings"
)

// Versions that decide how the bytes of a port-forwarding session are to be read.
const (
	// muxSinceClient is the first client that agents multiplex for (agent:
	// session/plugins/port/port.go, muxSupportedClientVersion).
	muxSinceClient = "1.1.70"
	// noKeepAliveAfterClient is the last client that agents expect smux keepalives
	// from (same file, muxKeepAliveDisabledAfterThisClientVersion).
	noKeepAliveAfterClient = "1.2.331.0"
	// muxAfterAgent is the last agent that does not multiplex (plugin:
	// config/config.go, TCPMultiplexingSupportedAfterThisAgentVersion).
	muxAfterAgent = "3.0.196.0"
	// noKeepAliveAfterAgent is the last agent with smux keepalives for every
	// client (same file,
	// TCPMultiplexingWithSmuxKeepAliveDisabledAfterThisAgentVersion).
	noKeepAliveAfterAgent = "3.1.1511.0"
)

// agentAfter reports whether an agent's version is above another. Both must be
// dotted numbers of the same length, else it is not (plugin:
// version/versionutil.go).
func agentAfter(version, than string) bool {
	a, okA := parseVersion(version)
	b, okB := parseVersion(than)
	return okA && okB && len(a) == len(b) && slices.Compare(a, b) > 0
}

func parseVersion(s string) ([]uint64, bool) {
	var parts []uint64
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return nil, false
		}
		parts = append(parts, n)
	}
	return parts, true
}

// compareClient compares our version with another as the agent does: part by
// part, as numbers where both are numbers and as text otherwise; the one that ends
// first is smaller (agent: versionutil/versionutil.go, Compare).
func compareClient(version, with string) int {
	return slices.CompareFunc(strings.Split(version, "."), strings.Split(with, "."), func(a, b string) int {
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		if errX != nil || errY != nil {
			return strings.Compare(a, b)
		}
		return x - y
	})
}

// multiplexes reports whether agent and client, by their versions, both take a
// port-forwarding session for a multiplexed one.
func multiplexes(agent, client string) bool {
	return agentAfter(agent, muxAfterAgent) && compareClient(client, muxSinceClient) >= 0
}

// keepsAlive reports whether a multiplexed session needs smux keepalives. Where it
// does not, the agent sends none, and ours would defeat the idle time-out.
func keepsAlive(agent, client string) bool {
	return !agentAfter(agent, noKeepAliveAfterAgent) || compareClient(client, noKeepAliveAfterClient) <= 0
}
