// Package target tells the hosts that are SSM targets from all others, by their form alone.
//
// A target is what the user typed as host. It names a managed node when it is an instance id
// (i- and 8 or 17 hexadecimal digits) or a managed instance id (mi- and 17), each optionally with
// .region and .region.profile after it; a name that begins with "ssm." is one as well, but has to
// be looked up. AWS is never asked which it is. What this package doesn't know: ssh_config, in
// which any host can be made a target by a keyword.
package target

import "strings"

// prefix begins the names that are targets whatever follows.
const prefix = "ssm."

// Target is a target taken apart. NodeID is empty when the name is one that must be looked up;
// Region and Profile are empty where the name has none.
type Target struct {
	Name    string
	NodeID  string
	Region  string
	Profile string
}

// Parse takes host apart and reports whether it is a target. The ids and the region may be
// written in either case; they come out in lower case, as AWS has them. The profile is kept as
// typed, dots included.
func Parse(host string) (Target, bool) {
	if len(host) > len(prefix) && strings.EqualFold(host[:len(prefix)], prefix) {
		return Target{Name: host}, true
	}
	id, rest, qualified := strings.Cut(host, ".")
	if !isNodeID(id) {
		return Target{}, false
	}
	t := Target{Name: host, NodeID: strings.ToLower(id)}
	if !qualified {
		return t, true
	}
	region, profile, hasProfile := strings.Cut(rest, ".")
	if !isRegion(region) || hasProfile && profile == "" {
		return Target{}, false
	}
	t.Region, t.Profile = strings.ToLower(region), profile
	return t, true
}

// String returns the target as the user typed it.
func (t Target) String() string { return t.Name }

// Lookup returns the name to look up, without its prefix, of a target that has no node id.
func (t Target) Lookup() string {
	if t.NodeID != "" || len(t.Name) < len(prefix) {
		return ""
	}
	return t.Name[len(prefix):]
}

// isNodeID knows the lengths that EC2 and SSM give out: 8 digits until 2016, 17 since; managed
// instances have had 17 from the start.
func isNodeID(s string) bool {
	kind, digits, ok := strings.Cut(s, "-")
	switch {
	case !ok || !isHex(digits):
		return false
	case strings.EqualFold(kind, "i"):
		return len(digits) == 8 || len(digits) == 17
	case strings.EqualFold(kind, "mi"):
		return len(digits) == 17
	}
	return false
}

func isHex(s string) bool {
	for i := range len(s) {
		letter := s[i] | 0x20
		if (s[i] < '0' || s[i] > '9') && (letter < 'a' || letter > 'f') {
			return false
		}
	}
	return true
}

// isRegion accepts words of letters, digits and inner hyphens with at least one hyphen, as every
// region has. A host below a DNS domain (i-0123abcd.example.com) thus is no target.
func isRegion(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		letter := s[i] | 0x20
		if (letter < 'a' || letter > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return strings.Contains(s, "-")
}
