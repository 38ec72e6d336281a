package sshproxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// The node tells after authentication which host keys it has, and on demand proves that it has them, each by
// a signature over this connection's session id (OpenSSH's PROTOCOL, 2.5).
const (
	hostKeysRequest  = "hostkeys-00@openssh.com"
	hostKeysProveReq = "hostkeys-prove-00@openssh.com"
)

const updateAsk = "ask"

// updatesHostKeys reports whether the configuration lets the node introduce its other keys (clientloop.c,
// can_update_hostkeys).
func (cfg *Config) updatesHostKeys() bool {
	switch cfg.UpdateHostKeys {
	case "yes":
	case updateAsk:
		if cfg.BatchMode {
			return false
		}
	default:
		return false
	}
	return len(cfg.UserKnownHostsFile) > 0 && cfg.hostKey == nil
}

// hostKeyUpdate is what the node's list of keys means for the user's files (clientloop.c,
// hostkeys_update_ctx).
type hostKeyUpdate struct {
	client *Client
	name   string

	keys []ssh.PublicKey // the node's, of types that HostKeyAlgorithms allows
	new  []ssh.PublicKey // of those, what no file has for name
	old  []ssh.PublicKey // what a file has for name and the node has no more
}

// updateHostKeys is the whole of UpdateHostKeys for one list. It asks the node at most once, and is nobody's
// turn to wait for: sessions go on meanwhile.
func (c *Client) updateHostKeys(list []byte) {
	u := &hostKeyUpdate{client: c, name: c.cfg.knownHostsName()}
	if !u.read(list) || !u.compare() {
		return
	}
	if len(u.new) > 0 && !u.prove() {
		return
	}
	u.say()
	if c.cfg.UpdateHostKeys == updateAsk && !u.ask() {
		return
	}
	for i, file := range c.cfg.UserKnownHostsFile {
		keys := u.keys
		if i > 0 {
			keys = nil // all are in the first file
		}
		err := c.replaceKnownHosts(file, u.name, keys)
		if errors.Is(err, fs.ErrNotExist) {
			c.cfg.Logf(1, "known hosts file %s does not exist", file)
		} else if err != nil {
			c.cfg.Logf(-1, "update_known_hosts: hostfile_replace_entries failed for %s: %s", file, strerror(err))
		}
	}
}

// read takes the keys off the list: strings of RFC 4251, a key in each.
func (u *hostKeyUpdate) read(list []byte) bool {
	cfg := &u.client.cfg
	allowed := cfg.hostKeyAlgorithms()
	for len(list) > 0 {
		blob, rest, ok := cutString(list)
		if !ok {
			cfg.Logf(-1, "client_input_hostkeys: parse key: incomplete message")
			return false
		}
		list = rest
		key, err := ssh.ParsePublicKey(blob)
		switch {
		case err != nil:
			cfg.Logf(1, "client_input_hostkeys: convert key: %s", printable(err.Error()))
		case !allowsKey(allowed, key):
			cfg.Logf(3, "%s key not permitted by HostkeyAlgorithms", key.Type())
		case isCertificate(key):
			cfg.Logf(3, "%s key is a certificate; skipping", key.Type())
		case containsKey(u.keys, key):
			cfg.Logf(-1, "client_input_hostkeys: received duplicated %s host key", key.Type())
			return false
		default:
			u.keys = append(u.keys, key)
		}
	}
	return len(u.keys) > 0
}

func isCertificate(key ssh.PublicKey) bool {
	_, ok := key.(*ssh.Certificate)
	return ok
}

// allowsKey reports whether one of the algorithms is a key's (clientloop.c, key_accepted_by_hostkeyalgs).
func allowsKey(algorithms []string, key ssh.PublicKey) bool {
	if key.Type() == ssh.KeyAlgoRSA && (slices.Contains(algorithms, ssh.KeyAlgoRSASHA256) || slices.Contains(algorithms, ssh.KeyAlgoRSASHA512)) {
		return true
	}
	return slices.Contains(algorithms, key.Type())
}

func containsKey(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	return slices.ContainsFunc(keys, func(other ssh.PublicKey) bool { return sameKey(other, key) })
}

// cutString takes a string of RFC 4251 off the front.
func cutString(data []byte) (s, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	n := uint64(binary.BigEndian.Uint32(data))
	if data = data[4:]; n > uint64(len(data)) {
		return nil, nil, false
	}
	return data[:n], data[n:], true
}

// compare finds what is new and what is old, and reports whether the files may be changed for it. They may
// not where somebody has written more than a name, or has the keys under other names, which would then
// disagree (clientloop.c, hostkeys_find and client_input_hostkeys).
func (u *hostKeyUpdate) compare() bool {
	cfg := &u.client.cfg
	u.new = slices.Clone(u.keys)
	reason := ""
	scanKnownHosts(cfg.UserKnownHostsFile, func(entry *knownHost) bool {
		is := func(key ssh.PublicKey) bool { return sameKey(key, entry.key) }
		switch known := slices.ContainsFunc(u.keys, is); {
		case !entry.matches(u.name):
			if known {
				reason = "host key found matching a different name/address"
			}
		case entry.marker != "" || isComplex(entry.names):
			reason = "CA/revocation marker, manual host list or wildcard host pattern found"
		case known:
			u.new = slices.DeleteFunc(u.new, is)
		default:
			u.old = append(u.old, entry.key)
		}
		return true
	})
	if len(u.new) == 0 && len(u.old) == 0 {
		cfg.Logf(1, "no new or deprecated keys from server")
		return false
	}
	if reason == "" && u.oldElsewhere() {
		reason = "key(s) for " + u.name + " exist under other names"
	}
	if reason != "" {
		cfg.Logf(1, "%s, skipping UserKnownHostsFile update", reason)
	}
	return reason == ""
}

// isComplex reports whether names are other than OpenSSH writes them: one, or one with its address.
func isComplex(names string) bool {
	return strings.ContainsAny(names, "*?") || strings.Count(names, ",") > 1
}

// oldElsewhere reports whether an old key is also known under another name.
func (u *hostKeyUpdate) oldElsewhere() (seen bool) {
	if len(u.old) == 0 {
		return false
	}
	scanKnownHosts(u.client.cfg.UserKnownHostsFile, func(entry *knownHost) bool {
		seen = !entry.matches(u.name) && containsKey(u.old, entry.key)
		return !seen
	})
	return seen
}

// prove has the node sign with every new key. It drops RSA keys that sign by SHA-1, and reports false when a
// signature is missing or wrong (clientloop.c, client_global_hostkeys_prove_confirm).
func (u *hostKeyUpdate) prove() bool {
	c := u.client
	var request []byte
	for _, key := range u.new {
		request = appendString(request, key.Marshal())
	}
	c.cfg.Logf(3, "asking server to prove ownership for %d keys", len(u.new))
	granted, proofs, err := c.conn.SendRequest(hostKeysProveReq, true, request)
	if err != nil {
		return false // the connection has ended
	}
	if !granted {
		c.cfg.Logf(-1, "Server failed to confirm ownership of private host keys")
		return false
	}
	var proven []ssh.PublicKey
	for i, key := range u.new {
		proof, rest, ok := cutString(proofs)
		if !ok {
			c.cfg.Logf(-1, "client_global_hostkeys_prove_confirm: parse sig: incomplete message")
			return false
		}
		proofs = rest
		signed, trusted := u.verify(key, proof)
		switch {
		case !signed:
			c.cfg.Logf(-1, "client_global_hostkeys_prove_confirm: server gave bad signature for %s key %d: incorrect signature", keyTypeName(key), i)
			return false
		case !trusted:
			c.cfg.Logf(1, "server used untrusted RSA signature algorithm for key %d, disregarding", i)
			u.keys = slices.DeleteFunc(u.keys, func(k ssh.PublicKey) bool { return sameKey(k, key) })
		default:
			proven = append(proven, key)
		}
	}
	u.new = proven
	return len(proofs) == 0
}

// verify reports whether the proof is the key's signature, and by an algorithm that is to be trusted: for an
// RSA key that of the key exchange if it was one of RSA, else one of SHA-2.
func (u *hostKeyUpdate) verify(key ssh.PublicKey, proof []byte) (signed, trusted bool) {
	conn := u.client.conn
	var sig ssh.Signature
	if ssh.Unmarshal(proof, &sig) != nil {
		return false, false
	}
	if key.Type() == ssh.KeyAlgoRSA {
		exchanged := ""
		if m, ok := conn.(ssh.AlgorithmsConnMetadata); ok {
			exchanged = strings.TrimSuffix(m.Algorithms().HostKey, certSuffix)
		}
		switch exchanged {
		case ssh.KeyAlgoRSA, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512:
			if sig.Format != exchanged {
				return false, false
			}
		default:
			if sig.Format != ssh.KeyAlgoRSASHA256 && sig.Format != ssh.KeyAlgoRSASHA512 {
				return true, false
			}
		}
	}
	data := appendString(nil, []byte(hostKeysProveReq))
	data = appendString(data, conn.SessionID())
	data = appendString(data, key.Marshal())
	return verifyHostSignature(key, data, &sig) == nil, true
}

func appendString(to, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(s))), s...)
}

// say tells what has changed; to a user who is asked, at the level of questions.
func (u *hostKeyUpdate) say() {
	cfg := &u.client.cfg
	say := cfg.verbosef
	if cfg.UpdateHostKeys == updateAsk {
		say = func(format string, args ...any) { cfg.Logf(0, format, args...) }
		say("The server has updated its host keys.")
		say("These changes were verified by the server's existing trusted key.")
	}
	for _, key := range u.new {
		say("Learned new hostkey: %s %s", keyTypeName(key), cfg.fingerprint(key))
	}
	for _, key := range u.old {
		say("Deprecating obsolete hostkey: %s %s", keyTypeName(key), cfg.fingerprint(key))
	}
}

// askTries is how often the question is put (clientloop.c, update_known_hosts).
const askTries = 3

// ask puts the question until it is answered or the connection has ended.
func (u *hostKeyUpdate) ask() bool {
	c := u.client
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.track(func() {
		defer cancel()
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	})
	for range askTries {
		answer, err := c.cfg.Prompt.Question(ctx, "Accept updated hostkeys? (yes/no): ")
		switch {
		case err != nil || strings.EqualFold(answer, "no"):
			return false
		case strings.EqualFold(answer, "yes"):
			return true
		}
		c.cfg.Logf(0, "Please enter \"yes\" or \"no\"")
	}
	return false
}

// SettleHostKeys returns when the user has answered the question that UpdateHostKeys ask may have put, and at
// once where there is none. A node tells its keys before it confirms the first channel: so whoever calls this
// after that, and before a session takes the terminal, leaves the terminal to the question.
func (c *Client) SettleHostKeys(ctx context.Context) {
	if c.cfg.UpdateHostKeys != updateAsk {
		return
	}
	reply := make(chan (<-chan struct{}))
	var updated <-chan struct{}
	select {
	case c.settle <- reply:
		updated = <-reply
	case <-c.done:
	case <-ctx.Done():
	}
	if updated == nil {
		return
	}
	select {
	case <-updated:
	case <-c.done:
	case <-ctx.Done():
	}
}
