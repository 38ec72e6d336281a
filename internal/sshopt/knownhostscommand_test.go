package sshopt

import (
	"slices"
	"testing"
)

// TestKnownHostsCommand splits first and expands then; what only the host key tells, and every % that came in,
// waits for a second expansion.
func TestKnownHostsCommand(t *testing.T) {
	env := Environment{Home: "/home/me", LocalUser: "me", Hostname: "here",
		Getenv: func(name string) (string, bool) { return "100%f", name == "ODD" }}
	tests := []struct {
		name, value string
		want        []string
		fails       bool
	}{
		{name: "tokens", value: "/x %h %p %r %u %n", want: []string{"/x", "host", "22", "me", "me", "host"}},
		{name: "tokens of the key", value: "/x %f-%H %I %K%%%t", want: []string{"/x", "%f-%H", "%I", "%K%%%t"}},
		{name: "quotes", value: `/x "a b" 'c "d"' \"e #f`, want: []string{"/x", "a b", `c "d"`, `"e`, "#f"}},
		{name: "the program's name stays", value: "/%h %h", want: []string{"/%h", "host"}},
		{name: "a variable's percent", value: "/x ${ODD}", want: []string{"/x", "100%%f"}},
		{name: "open quote", value: `/x "a`, fails: true},
		{name: "open quote where a comment might be", value: `/x #"a`},
		{name: "unknown token", value: "/x %T", fails: true},
		{name: "none", value: "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			opts, err := Parse([]string{"-F", "none", "-o", "KnownHostsCommand=" + tt.value, "host"}, env)
			if (err != nil) != tt.fails {
				t.Fatal(err)
			}
			if !tt.fails && !slices.Equal(opts.KnownHostsCommandArgs, tt.want) {
				t.Errorf("got %q, want %q", opts.KnownHostsCommandArgs, tt.want)
			}
		})
	}
}
