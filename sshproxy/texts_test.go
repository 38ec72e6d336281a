package sshproxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestDisconnectText holds samples of x/crypto/ssh's wording, the only place where it shows.
func TestDisconnectText(t *testing.T) {
	lines := func(n int, s string) string {
		return fmt.Sprintf("Received disconnect from P:%d: %s\nDisconnected from P", n, s)
	}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"in the handshake", errors.New(`ssh: handshake failed: ssh: disconnect, reason 2: "Too many authentication failures"`),
			lines(2, "Too many authentication failures")},
		{"later", errors.New(`ssh: disconnect, reason 11: "bye: now"`), lines(11, "bye: now")},
		{"older wording", errors.New("ssh: disconnect, reason 11: bye"), lines(11, "bye")},
		{"control characters", errors.New(`ssh: disconnect, reason 11: "a\x1b[2J\nb"`), lines(11, `a\033[2J\012b`)},
		{"no number", errors.New("ssh: disconnect, reason x: bye"), ""},
		{"other", io.EOF, ""},
		{"none", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := disconnectText("P", tt.err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLostConnectionText(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	pipe := &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}
	tests := []struct {
		name        string
		read, write error
		want        string
	}{
		{"end of file", io.EOF, nil, "Connection to node closed by remote host."},
		{"reset", reset, nil, "Read from remote host node: Connection reset by peer"},
		{"broken pipe", nil, pipe, "client_loop: send disconnect: Broken pipe"},
		{"both", io.EOF, pipe, "Connection to node closed by remote host."},
		{"protocol", nil, nil, "ssh connection to node: ssh: odd packet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &Client{cfg: Config{Host: "node"}, wire: &wire{readErr: tt.read, writeErr: tt.write}}
			if got := c.lostError(errors.New("ssh: odd packet")).Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNegotiationFailsInWords(t *testing.T) {
	n := startNode(t, nodeOptions{lines: []string{"Ciphers aes256-ctr", "KexAlgorithms ecdh-sha2-nistp256", "MACs hmac-sha2-256"}})
	tests := []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"cipher", func(c *Config) { c.Ciphers = []string{"aes128-ctr"} }, "cipher found. Their offer: aes256-ctr"},
		{"key exchange", func(c *Config) { c.KexAlgorithms = []string{"curve25519-sha256"} },
			"key exchange method found. Their offer: ecdh-sha2-nistp256,kex-strict-s-v00@openssh.com"},
		{"host key", func(c *Config) { c.HostKeyAlgorithms = []string{ssh.KeyAlgoRSASHA256} }, "host key type found. Their offer: ssh-ed25519"},
		{"mac", func(c *Config) { c.MACs, c.Ciphers = []string{"hmac-sha1"}, []string{"aes256-ctr"} }, "MAC found. Their offer: hmac-sha2-256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log logBook
			cfg := n.clientConfig(&log)
			tt.change(&cfg)
			_, err := NewClient(testContext(t), n.dial(t), cfg)
			want := "Unable to negotiate with UNKNOWN port 65535: no matching " + tt.want
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	var log logBook
	cfg := n.clientConfig(&log)
	cfg.Ciphers = []string{"chacha99", "rot13"}
	_, err := NewClient(testContext(t), n.dial(t), cfg)
	if want := "ssh handshake: no supported algorithm in Ciphers=chacha99,rot13"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestEncodeModes(t *testing.T) {
	got := encodeModes(ssh.TerminalModes{ssh.ECHO: 1, ssh.VINTR: 3, ssh.TTY_OP_ISPEED: 0x01020304, ssh.TTY_OP_OSPEED: 5, 0: 9})
	want := "\x81\x00\x00\x00\x05\x80\x01\x02\x03\x04\x01\x00\x00\x00\x03\x35\x00\x00\x00\x01\x00"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := encodeModes(nil); got != "\x00" {
		t.Errorf("got %q for no modes", got)
	}
}
