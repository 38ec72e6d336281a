package agentmsg

import (
	"errors"
	"testing"
)

func TestParseExitCode(t *testing.T) {
	tests := []struct {
		name    string
		payload string
		want    int
		bad     bool
	}{
		{"success", "EXIT_CODE: 0", 0, false},
		{"failure", "EXIT_CODE: 127", 127, false},
		{"with line end", "EXIT_CODE: 3\n", 3, false},
		{"negative", "EXIT_CODE: -1", -1, false},
		{"no number", "EXIT_CODE: ", 0, true},
		{"no prefix", "7", 0, true},
		{"too large", "EXIT_CODE: 99999999999", 0, true},
		{"empty", "", 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseExitCode([]byte(tt.payload))
			if got != tt.want || tt.bad != errors.Is(err, ErrFormat) {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

func FuzzParseExitCode(f *testing.F) {
	f.Add([]byte("EXIT_CODE: 0"))
	f.Add([]byte("EXIT_CODE: +5\r\n"))
	f.Add([]byte("EXIT_CODE:"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		code, err := ParseExitCode(payload)
		if err != nil {
			return
		}
		again, err := ParseExitCode(AppendExitCode(nil, code))
		if err != nil || again != code {
			t.Errorf("%d became %d, %v", code, again, err)
		}
	})
}
