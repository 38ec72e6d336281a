package sshproxy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBannerIsStocks shows a banner beside OpenSSH's client, byte for byte.
func TestBannerIsStocks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "banner")
	n := startNode(t, nodeOptions{lines: []string{"Banner " + file}})
	tests := []struct {
		name, banner string
		utf8         bool
	}{
		{name: "none"},
		{name: "a line", banner: "abcdefghi\n"},
		{name: "no end of line", banner: "abc"},
		{name: "ends of lines", banner: "\n\na\r\n\r\tb\n\n"},
		{name: "control characters", banner: "\x1b[2J\x07\x7f\x01\\n %s \\033\n"},
		{name: "ASCII locale", banner: "gr\u00fc\u00df \u2713 \U0001f600\n"},
		{name: "UTF-8 locale", banner: "gr\u00fc\u00df \u2713 \U0001f600 \u0085\n", utf8: true},
		{name: "broken UTF-8", banner: "a\xc3(b\xff\xfe\xe2\x9c\n", utf8: true},
		{name: "100000 bytes", banner: strings.Repeat("abcdefghi\n", 10000)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			writeFile(t, file, tt.banner, 0o600)
			var want, got bytes.Buffer
			cmd := n.stockCommand(t, "UserKnownHostsFile="+n.knownHosts, "BatchMode=yes")
			cmd.Stderr, cmd.Env = &want, append(os.Environ(), "LC_ALL=C")
			if tt.utf8 {
				cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
			}
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, want.String())
			}
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.Banner, cfg.UTF8 = &got, tt.utf8
			n.connect(t, cfg)
			if got.String() != want.String() || log.text() != "" {
				t.Errorf("got\n%q\nwant\n%q\nlog %q", got.String(), want.String(), log.text())
			}
		})
	}
}
