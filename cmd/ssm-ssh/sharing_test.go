package main

import (
	"path/filepath"
	"testing"
	"time"

	"ssm-ssh/internal/sshopt"
)

func TestAccountOf(t *testing.T) {
	tests := []struct{ name, id, want string }{
		{"key of account 029608264753", "ASIAQNZGKIQY56JQ7WML", "29608264753"},
		{"rotated key, same account", "AKIAQNZGKIQYZZZZZZZZ", "29608264753"},
		{"other form", "LAB", "LAB"},
		{"none", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := accountOf(tt.id); got != tt.want {
				t.Errorf("accountOf(%q) = %q, want %q", tt.id, got, tt.want)
			}
		})
	}
}

// TestControlPersist is who becomes the master, and for how long it waits, for every form of the
// keyword (ssh_config(5)): on a path of the user's, on none, and for a host that is no node.
func TestControlPersist(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("SSM_SSH_CONFIG", filepath.Join(t.TempDir(), "none"))
	type made struct {
		who     creation
		persist time.Duration
	}
	background := func(d time.Duration) made { return made{createBackground, d} }
	foreground, nobody := made{who: createForeground}, made{who: createNone}
	tests := []struct {
		persist              string // "": not set
		implicit, auto, host made
	}{
		{"", background(time.Minute), foreground, nobody},
		{"no", foreground, foreground, nobody},
		{"false", foreground, foreground, nobody},
		{"yes", background(-1), background(-1), nobody},
		{"true", background(-1), background(-1), nobody},
		{"0", background(-1), background(-1), nobody},
		{"60", background(time.Minute), background(time.Minute), nobody},
		{"60s", background(time.Minute), background(time.Minute), nobody},
		{"1m30s", background(90 * time.Second), background(90 * time.Second), nobody},
		{"1h", background(time.Hour), background(time.Hour), nobody},
		{"1w2D", background(9 * 24 * time.Hour), background(9 * 24 * time.Hour), nobody},
	}
	for _, tt := range tests {
		for _, way := range []struct {
			name string
			args []string
			want made
		}{
			{"implicit", []string{"i-0123456789abcdef0", "true"}, tt.implicit},
			{"auto", []string{"-S", "/p", "-o", "ControlMaster=auto", "i-0123456789abcdef0", "true"}, tt.auto},
			{"auto, no node", []string{"-S", "/p", "-o", "ControlMaster=auto", "host", "true"}, tt.auto},
			{"no node", []string{"host", "true"}, tt.host},
		} {
			t.Run(tt.persist+" "+way.name, func(t *testing.T) {
				args := append([]string{"-F", "/dev/null"}, way.args...)
				if tt.persist != "" {
					args = append([]string{"-o", "ControlPersist=" + tt.persist}, args...)
				}
				opts, err := sshopt.Parse(args, environment(stdio{in: 0, out: 1, err: 2}))
				if err != nil {
					t.Fatal(err)
				}
				s, err := sharingOf("ssm-ssh", opts)
				if got := (made{s.create, s.persist}); err != nil || got != way.want {
					t.Errorf("got %+v, %v, want %+v", got, err, way.want)
				}
			})
		}
	}
}
