package sshproxy

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
)

// Keys are renewed in mid-transfer, at the client's wish and at the server's, and no byte is lost.
func TestRekey(t *testing.T) {
	size := 10 << 20
	if testing.Short() {
		size = 2 << 20
	}
	const limit = 256 << 10
	data := make([]byte, size)
	rand.Read(data)
	for name, limits := range map[string]struct {
		client uint64
		server string
	}{
		"client": {limit, ""},
		"tiny":   {16, ""},
		"server": {0, "RekeyLimit 256k"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := nodeOptions{}
			if limits.server != "" {
				opts.lines = []string{limits.server}
			}
			n := startNode(t, opts)
			cfg := n.clientConfig(new(logBook))
			cfg.RekeyLimitBytes = limits.client
			c := n.connect(t, cfg)
			out, _, status, _ := run(t, c, SessionRequest{Command: "cat", Stdin: bytes.NewReader(data)})
			if status != 0 || out != string(data) {
				t.Errorf("status %d, %d bytes of %d", status, len(out), size)
			}
			c.Close()
			log, err := os.ReadFile(filepath.Join(n.dir, "sshd.log"))
			if err != nil {
				t.Fatal(err)
			}
			// What goes up and what comes down count apart; what arrives in an exchange is held back.
			if renewed := bytes.Count(log, []byte("set_newkeys: rekeying out")); renewed < size/limit/4 {
				t.Errorf("keys were renewed %d times in %d bytes", renewed, size)
			}
		})
	}
}
