package main

import "testing"

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
