package sshproxy

import (
	"strings"

	"golang.org/x/crypto/ssh"
)

// What ssh -v shows of a connection, in OpenSSH's words: people and tools look for these lines.

// sayNegotiated says what both sides have agreed on (kex.c, kex_exchange_identification and kex_choose_conf).
func sayNegotiated(cfg *Config, meta ssh.ConnMetadata) {
	software := strings.TrimPrefix(printable(string(meta.ServerVersion())), "SSH-2.0-")
	cfg.Logf(1, "Remote protocol version 2.0, remote software version %s", software)
	m, ok := meta.(ssh.AlgorithmsConnMetadata)
	if !ok {
		return
	}
	chosen := m.Algorithms()
	cfg.Logf(1, "kex: algorithm: %s", chosen.KeyExchange)
	cfg.Logf(1, "kex: host key algorithm: %s", chosen.HostKey)
	sayDirection(cfg, "server->client", chosen.Read)
	sayDirection(cfg, "client->server", chosen.Write)
}

func sayDirection(cfg *Config, direction string, chosen ssh.DirectionAlgorithms) {
	mac := chosen.MAC
	if mac == "" {
		mac = "<implicit>" // the cipher's own
	}
	cfg.Logf(1, "kex: %s cipher: %s MAC: %s compression: none", direction, chosen.Cipher, mac)
}

// sayHostKey shows what the server has shown (sshconnect.c, verify_host_key). A certificate's fingerprint is that
// of the key in it.
func sayHostKey(cfg *Config, key ssh.PublicKey) {
	cfg.Logf(1, "Server host key: %s %s", key.Type(), cfg.fingerprint(key))
}

// sayAuthenticated ends the log of a handshake (sshconnect2.c, ssh_userauth2). OpenSSH has the line at VERBOSE.
func sayAuthenticated(cfg *Config, method string) {
	if cfg.Addr == "" {
		cfg.verbosef("Authenticated to %s (via proxy) using %q.", cfg.Host, method)
		return
	}
	cfg.verbosef("Authenticated to %s ([%s]:%d) using %q.", cfg.Host, cfg.Addr, cfg.Port, method)
}

// verbosef logs a line that OpenSSH has at VERBOSE.
func (cfg *Config) verbosef(format string, args ...any) {
	if cfg.Verbose {
		cfg.Logf(0, format, args...)
	}
}
