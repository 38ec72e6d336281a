package sshopt

import "strings"

// family is a kind of algorithm. known are all the names that OpenSSH of any age we care for
// accepts; supported are those that this program can do, in its order of preference where they are
// defaults; the others may only be asked for.
type family struct {
	known     []string
	defaults  []string
	extra     []string
	wildcards bool // patterns may stand for names (sshkey_names_valid2, sshkey.c)
}

// The lists of what is supported follow golang.org/x/crypto/ssh v0.58 (SupportedAlgorithms and
// InsecureAlgorithms, which a test compares); the order is OpenSSH 9.2's, with 10.x's hybrid key
// exchange at its head.
var (
	algCiphers = family{
		known: []string{"3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc", "aes128-ctr", "aes192-ctr",
			"aes256-ctr", "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com",
			"rijndael-cbc@lysator.liu.se"},
		defaults: []string{"chacha20-poly1305@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
			"aes128-gcm@openssh.com", "aes256-gcm@openssh.com"},
		extra: []string{"3des-cbc", "aes128-cbc"},
	}
	algMACs = family{
		known: []string{"hmac-sha1", "hmac-sha1-96", "hmac-sha2-256", "hmac-sha2-512", "hmac-md5", "hmac-md5-96",
			"umac-64@openssh.com", "umac-128@openssh.com", "hmac-sha1-etm@openssh.com",
			"hmac-sha1-96-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com",
			"hmac-md5-etm@openssh.com", "hmac-md5-96-etm@openssh.com", "umac-64-etm@openssh.com",
			"umac-128-etm@openssh.com"},
		defaults: []string{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256",
			"hmac-sha2-512", "hmac-sha1"},
		extra: []string{"hmac-sha1-96"},
	}
	algKex = family{
		known: []string{"diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1",
			"diffie-hellman-group14-sha256", "diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512",
			"diffie-hellman-group-exchange-sha1", "diffie-hellman-group-exchange-sha256", "ecdh-sha2-nistp256",
			"ecdh-sha2-nistp384", "ecdh-sha2-nistp521", "curve25519-sha256", "curve25519-sha256@libssh.org",
			"sntrup761x25519-sha512", "sntrup761x25519-sha512@openssh.com", "mlkem768x25519-sha256"},
		defaults: []string{"mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org",
			"ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
			"diffie-hellman-group-exchange-sha256", "diffie-hellman-group16-sha512",
			"diffie-hellman-group14-sha256"},
		extra: []string{"diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1",
			"diffie-hellman-group-exchange-sha1"},
	}
	// algKeys are those of hosts and users. A security key's signature is verified; one is made in an agent only.
	algKeys = family{
		known: knownSignatures,
		defaults: []string{"ssh-ed25519-cert-v01@openssh.com", "ecdsa-sha2-nistp256-cert-v01@openssh.com",
			"ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp521-cert-v01@openssh.com",
			"sk-ssh-ed25519-cert-v01@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
			"rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "ssh-ed25519",
			"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "sk-ssh-ed25519@openssh.com",
			"sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-512", "rsa-sha2-256"},
		extra:     []string{"ssh-dss", "ssh-dss-cert-v01@openssh.com", "ssh-rsa", "ssh-rsa-cert-v01@openssh.com"},
		wildcards: true,
	}
	algCASignatures = family{
		known: knownSignatures,
		defaults: []string{"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
			"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "rsa-sha2-512", "rsa-sha2-256"},
		extra:     []string{"ssh-dss", "ssh-rsa"},
		wildcards: true,
	}
)

// knownSignatures are the names of keys and signatures.
var knownSignatures = []string{"ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519@openssh.com",
	"sk-ssh-ed25519-cert-v01@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256-cert-v01@openssh.com",
	"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp521",
	"ecdsa-sha2-nistp521-cert-v01@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
	"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", "webauthn-sk-ecdsa-sha2-nistp256@openssh.com", "ssh-dss",
	"ssh-dss-cert-v01@openssh.com", "ssh-rsa", "ssh-rsa-cert-v01@openssh.com", "rsa-sha2-256",
	"rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512", "rsa-sha2-512-cert-v01@openssh.com"}

// firstUnknown returns the first name of a comma list that OpenSSH wouldn't know, and whether
// there is one.
func (f *family) firstUnknown(list string) (string, bool) {
	for name := range strings.SplitSeq(list, ",") {
		if !contains(f.known, name) && !(f.wildcards && f.matchesAny(name)) {
			return name, true
		}
	}
	return "", false
}

func (f *family) matchesAny(pattern string) bool {
	for _, name := range f.known {
		if pattern != "" && matchList(name, pattern, false) > 0 {
			return true
		}
	}
	return false
}

// valid reports whether all names of the list are known.
func (f *family) valid(list string) bool {
	_, unknown := f.firstUnknown(list)
	return !unknown
}

// resolve returns the names that a specification asks for (kex_assemble_names, kex.c): a list, or
// the defaults with some added behind (+) or before (^) them, or taken away (-). Names that this
// program can't do are dropped.
func (f *family) resolve(spec string) []string {
	if spec == "" {
		return f.defaults
	}
	switch spec[0] {
	case '-':
		var kept []string
		for _, name := range f.defaults {
			if matchList(name, spec[1:], false) <= 0 {
				kept = append(kept, name)
			}
		}
		return kept
	case '+':
		return f.appendMatches(append([]string(nil), f.defaults...), spec[1:])
	case '^':
		names := f.appendMatches(nil, spec[1:])
		for _, name := range f.defaults {
			names = appendNew(names, name)
		}
		return names
	}
	return f.appendMatches(nil, spec)
}

// appendMatches appends the supported names that each word of the list stands for, in the order
// of known.
func (f *family) appendMatches(names []string, list string) []string {
	for pattern := range strings.SplitSeq(list, ",") {
		for _, name := range f.known {
			if matchPattern(name, pattern) && f.supports(name) {
				names = appendNew(names, name)
			}
		}
	}
	return names
}

func (f *family) supports(name string) bool {
	return contains(f.defaults, name) || contains(f.extra, name)
}

func appendNew(names []string, name string) []string {
	if contains(names, name) {
		return names
	}
	return append(names, name)
}

func contains(names []string, name string) bool {
	for _, have := range names {
		if have == name {
			return true
		}
	}
	return false
}

func parseCiphers(l *line) error { return l.algorithms(&algCiphers, "Bad SSH2 cipher spec '%'.") }
func parseMACs(l *line) error    { return l.algorithms(&algMACs, "Bad SSH2 MAC spec '%'.") }
func parseKexAlgorithms(l *line) error {
	return l.algorithms(&algKex, "Bad SSH2 KexAlgorithms '%'.")
}
func parseKeyAlgorithms(l *line) error { return l.algorithms(&algKeys, "Bad key types '%'.") }

// algorithms checks a specification and keeps it for settleAlgorithms. What is taken away with
// '-' needs no check.
func (l *line) algorithms(f *family, text string) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	list := strings.TrimLeft(arg[:1], "+^") + arg[1:]
	if name, unknown := f.firstUnknown(list); unknown && arg[0] != '-' {
		if f == &algKex && list != "" {
			l.p.log(-1, "Unsupported KEX algorithm \""+name+"\"")
		}
		return l.bad(strings.Replace(text, "%", arg, 1))
	}
	if l.take() {
		*l.kw.field(l.p).(*string) = arg
	}
	return nil
}

// settleAlgorithms resolves all lists. One that comes out empty is an error: the SSH library would
// take it for its own defaults, which the user ruled out.
func (p *parser) settleAlgorithms() error {
	o := p.o
	for _, a := range [...]struct {
		to      *[]string
		f       *family
		spec    string
		keyword string
	}{
		{&o.Ciphers, &algCiphers, p.ciphers, "Ciphers"},
		{&o.MACs, &algMACs, p.macs, "MACs"},
		{&o.KexAlgorithms, &algKex, p.kex, "KexAlgorithms"},
		{&o.HostKeyAlgorithms, &algKeys, p.hostKeys, "HostKeyAlgorithms"},
		{&o.HostbasedAcceptedAlgorithms, &algKeys, p.hostbased, "HostbasedAcceptedAlgorithms"},
		{&o.PubkeyAcceptedAlgorithms, &algKeys, p.pubkeys, "PubkeyAcceptedAlgorithms"},
		{&o.CASignatureAlgorithms, &algCASignatures, p.caSignatures, "CASignatureAlgorithms"},
	} {
		*a.to = a.f.resolve(a.spec)
		if len(*a.to) == 0 {
			return fatal(a.keyword + ": this program can do none of '" + a.spec + "'; see -Q " + a.keyword)
		}
	}
	o.HostKeyOrderFixed = p.hostKeys != "" && p.hostKeys[0] != '+' && p.hostKeys[0] != '-'
	return nil
}
