package report

import (
	"errors"
	"testing"
)

func TestErrorIsOneLine(t *testing.T) {
	cause := errors.New("access denied\r\nsecond\x1b[31m line")
	tests := []struct {
		name string
		err  *Error
		want string
	}{
		{"all parts", &Error{Op: "start session", Target: "mi-1", Err: cause, Hint: "grant it"},
			"mi-1: start session: access denied second [31m line; grant it"},
		{"operation only", &Error{Op: "read config"}, "read config"},
		{"no target", &Error{Op: "load credentials", Err: errors.New("none found")}, "load credentials: none found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if !errors.Is(tests[0].err, cause) {
		t.Error("the cause is lost")
	}
}
