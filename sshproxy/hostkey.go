package sshproxy

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// hostKeyStatus is what known_hosts says of a key (hostfile.h, HostStatus).
type hostKeyStatus int

const (
	hostKeyNew hostKeyStatus = iota
	hostKeyOK
	hostKeyDiffers
	hostKeyRevoked
)

// Values of StrictHostKeyChecking that differ in what they do.
const (
	strictYes       = "yes"
	strictAsk       = "ask"
	strictAcceptNew = "accept-new"
	strictOff       = "off"
)

// hostKeyChecker decides on the node's host key as verify_host_key and check_host_key of OpenSSH's
// sshconnect.c do, from the files as they were before the connection was made.
type hostKeyChecker struct {
	ctx    context.Context // the life of one handshake
	cfg    *Config
	strict string
	host   knownName

	accepted ssh.PublicKey // shown again whenever keys are renewed
	changed  bool          // a key that does not match was let through
	vouches  bool          // the key may introduce others (UpdateHostKeys): the user's own files or the user knew it
}

// knownName is a name under which a host may be known, and the lines that speak of it.
type knownName struct {
	name     string
	entries  []knownHost
	portless *knownName // the host without its port, which is good for a known key only; nil: there is none
}

func newHostKeyChecker(ctx context.Context, cfg *Config) *hostKeyChecker {
	k := &hostKeyChecker{ctx: ctx, cfg: cfg, strict: cfg.StrictHostKeyChecking}
	switch k.strict {
	case "":
		k.strict = strictAsk
	case "no":
		k.strict = strictOff
	}
	k.host.name = cfg.knownHostsName()
	if bare := strings.ToLower(cfg.Host); cfg.HostKeyAlias == "" && bare != k.host.name {
		k.host.portless = &knownName{name: bare}
	}
	scanKnownHosts(k.files(), func(entry *knownHost) bool {
		for at := &k.host; at != nil; at = at.portless {
			if entry.matches(at.name) {
				at.entries = append(at.entries, *entry)
			}
		}
		return true
	})
	return k
}

func (k *hostKeyChecker) files() []string {
	return slices.Concat(k.cfg.UserKnownHostsFile, k.cfg.GlobalKnownHostsFile)
}

// hostKeyAlgorithms returns those that the configuration allows, in its order.
func (cfg *Config) hostKeyAlgorithms() []string {
	known := slices.Concat(ssh.SupportedAlgorithms().HostKeys, securityKeyAlgorithms)
	if len(cfg.HostKeyAlgorithms) == 0 {
		return known
	}
	return intersect(cfg.HostKeyAlgorithms, append(known, ssh.InsecureAlgorithms().HostKeys...))
}

// algorithms returns the host key algorithms to offer, those whose key is already known first: else
// the node might choose a type that is new to us, and a known host would look changed
// (sshconnect2.c, order_hostkeyalgs).
func (k *hostKeyChecker) algorithms() ([]string, error) {
	algorithms := k.cfg.hostKeyAlgorithms()
	if len(algorithms) == 0 {
		return nil, fmt.Errorf("no supported algorithm in HostKeyAlgorithms=%s", strings.Join(k.cfg.HostKeyAlgorithms, ","))
	}
	if k.cfg.HostKeyAlgorithmsFixed {
		return algorithms, nil
	}
	algorithms = securityKeysLast(algorithms)
	// OpenSSH looks here, and only here, for the host without its port.
	more, err := k.runKnownHostsCommand("ORDER", strings.ToLower(k.cfg.Host), nil)
	if err != nil {
		return nil, err
	}
	entries := slices.Concat(k.host.entries, more)
	if knowsType(entries, algorithms[0]) {
		return algorithms, nil
	}
	return firstThose(algorithms, func(algorithm string) bool {
		isCert := strings.HasSuffix(algorithm, certSuffix)
		return isCert && hasAuthority(entries) || knowsType(entries, algorithm)
	}), nil
}

// firstThose puts what is preferred before the rest, each in its order.
func firstThose(algorithms []string, preferred func(string) bool) []string {
	first, last := make([]string, 0, len(algorithms)), []string(nil)
	for _, algorithm := range algorithms {
		if preferred(algorithm) {
			first = append(first, algorithm)
		} else {
			last = append(last, algorithm)
		}
	}
	return append(first, last...)
}

// securityKeysLast puts behind all others the algorithms by which a handshake may fail: see
// securityKeyAlgorithms.
func securityKeysLast(algorithms []string) []string {
	return firstThose(algorithms, func(algorithm string) bool { return !slices.Contains(securityKeyAlgorithms, algorithm) })
}

// knowsType reports whether a key is known whose type, certified or not, is the algorithm's.
func knowsType(entries []knownHost, algorithm string) bool {
	base := strings.TrimSuffix(algorithm, certSuffix)
	switch base {
	case ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512:
		base = ssh.KeyAlgoRSA
	}
	for i := range entries {
		if entries[i].marker == "" && strings.TrimSuffix(entries[i].key.Type(), "@openssh.com") == strings.TrimSuffix(base, "@openssh.com") {
			status, _ := lookup(entries, entries[i].key)
			return status == hostKeyOK // else it is revoked
		}
	}
	return false
}

func hasAuthority(entries []knownHost) bool {
	return slices.ContainsFunc(entries, func(entry knownHost) bool { return entry.marker == markerCA })
}

// check is the ssh.HostKeyCallback. A refused key is a *TextError; the lines that explain it have
// been logged.
func (k *hostKeyChecker) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	if k.accepted != nil && sameKey(k.accepted, key) {
		return nil
	}
	if err := k.decide(key); err != nil {
		return err
	}
	k.accepted = key
	return nil
}

var errHostKey = &TextError{Text: textHostKeyFailed, Err: errAuthentication}

// decide asks, in this order: the connection that this one joins, the files of revoked keys, localhost's
// exception, and known_hosts.
func (k *hostKeyChecker) decide(key ssh.PublicKey) error {
	cfg := k.cfg
	if cfg.hostKey != nil {
		if sameKey(cfg.hostKey, key) {
			return nil
		}
		return errHostKey
	}
	if tooShort(cfg, key) {
		return &TextError{Text: "Bad server host key: Invalid key length", Err: errAuthentication}
	}
	if k.inRevokedFiles(key) {
		return errHostKey
	}
	if cfg.NoHostAuthenticationForLocalhost && cfg.HostKeyAlias == "" && net.ParseIP(cfg.Addr).IsLoopback() {
		cfg.Logf(1, "Forcing accepting of host key for loopback/localhost.")
		return nil
	}
	more, err := k.runKnownHostsCommand("HOSTNAME", k.host.name, key)
	if err != nil {
		return err
	}
	k.host.entries = append(k.host.entries, more...)
	return k.verify(&k.host, key)
}

// verify is check_host_key for one name. A certificate that no authority for the name has signed, or that is
// invalid, is tried as the plain key in it.
func (k *hostKeyChecker) verify(at *knownName, key ssh.PublicKey) error {
	if cert, ok := key.(*ssh.Certificate); ok {
		if settled, err := k.verifyCertificate(at, cert); settled {
			return err
		}
		k.cfg.Logf(1, "No matching CA found. Retry with plain key")
		key = cert.Key
	}
	status, found := lookup(at.entries, key)
	switch {
	case status == hostKeyOK:
		k.cfg.Logf(1, "Host '%s' is known and matches the %s host key.", at.name, keyTypeName(key))
		k.cfg.Logf(1, "Found key in %s:%d", found.file, found.line)
		k.vouches = at == &k.host && !found.command && !slices.Contains(k.cfg.GlobalKnownHostsFile, found.file)
		k.showArt(key)
		return nil
	case status == hostKeyRevoked:
		return k.revoked(at.name, key)
	case at != &k.host:
		return errHostKey // tried quietly
	case status == hostKeyDiffers:
		return k.differs(key, found)
	case k.verifyPortless(at, key):
		return nil
	case k.readOnly():
		return errHostKey
	}
	return k.unknown(key)
}

// verifyPortless reports whether the host is known without its port.
func (k *hostKeyChecker) verifyPortless(at *knownName, key ssh.PublicKey) bool {
	if at.portless == nil {
		return false
	}
	k.cfg.Logf(1, "checking without port identifier")
	if k.verify(at.portless, key) != nil {
		return false
	}
	k.cfg.Logf(1, "found matching key w/out port")
	return true
}

// readOnly reports whether new hosts can't be remembered, and are refused for that: there is no file of the
// user's, or the name would make a line that says more than it should.
func (k *hostKeyChecker) readOnly() bool {
	return len(k.cfg.UserKnownHostsFile) == 0 || strings.ContainsAny(k.cfg.Host, `@?*#[]|'"\`)
}

// lookup returns what the lines say of a plain key, and the line that says it. Any line with another
// key makes it differ, of whatever type: see algorithms.
func lookup(entries []knownHost, key ssh.PublicKey) (hostKeyStatus, *knownHost) {
	status, found := hostKeyNew, (*knownHost)(nil)
	for i := range entries {
		entry := &entries[i]
		same := sameKey(entry.key, key)
		switch {
		case entry.marker == markerRevoked && same:
			return hostKeyRevoked, nil
		case entry.marker != "" || status == hostKeyOK:
		case same:
			status, found = hostKeyOK, entry
		default:
			status, found = hostKeyDiffers, entry
		}
	}
	return status, found
}

// verifyCertificate reports whether the certificate settles the matter: signed by an authority for
// the name and valid, or revoked.
func (k *hostKeyChecker) verifyCertificate(at *knownName, cert *ssh.Certificate) (settled bool, err error) {
	authority := (*knownHost)(nil)
	for i := range at.entries {
		entry := &at.entries[i]
		switch entry.marker {
		case markerRevoked:
			if sameKey(entry.key, cert.SignatureKey) || sameKey(entry.key, cert.Key) {
				return true, k.revoked(at.name, cert)
			}
		case markerCA:
			if authority == nil && sameKey(entry.key, cert.SignatureKey) {
				authority = entry
			}
		}
	}
	if authority == nil {
		return k.verifyPortless(at, cert), nil
	}
	k.cfg.Logf(1, "Host '%s' is known and matches the %s host certificate.", at.name, keyTypeName(cert))
	k.cfg.Logf(1, "Found CA key in %s:%d", authority.file, authority.line)
	if reason := k.certificateFault(cert); reason != "" {
		k.errorLines(reason)
		return false, nil
	}
	k.showArt(cert)
	return true, nil
}

// certificateFault says why a certificate isn't valid for the host, in OpenSSH's words (sshkey.c,
// sshkey_cert_check_host); "" when it is.
func (k *hostKeyChecker) certificateFault(cert *ssh.Certificate) string {
	now := uint64(time.Now().Unix())
	host := k.cfg.promptHost()
	switch {
	case cert.CertType != ssh.HostCert:
		return "Certificate invalid: not a host certificate"
	case now < cert.ValidAfter:
		return "Certificate invalid: not yet valid"
	case cert.ValidBefore != ssh.CertTimeInfinity && now >= cert.ValidBefore:
		return "Certificate invalid: expired"
	case len(cert.ValidPrincipals) > 0 && !slices.Contains(cert.ValidPrincipals, host):
		return "Certificate invalid: name is not a listed principal"
	case len(cert.CriticalOptions) > 0:
		return "Certificate contains unsupported critical options(s)"
	case len(k.cfg.CASignatureAlgorithms) > 0 && !slices.Contains(k.cfg.CASignatureAlgorithms, cert.Signature.Format):
		return "Certificate signed with disallowed algorithm"
	}
	if err := new(ssh.CertChecker).CheckCert(host, cert); err != nil { // the signature, above all
		return printable(strings.TrimPrefix(err.Error(), "ssh: "))
	}
	return ""
}

// letThrough goes on with an unproven node and takes away what it could steal.
func (k *hostKeyChecker) letThrough() error {
	k.changed = true
	cancelled := false
	disable := func(what string, enabled *bool) {
		if *enabled {
			*enabled, cancelled = false, true
			k.errorLines(what + " is disabled to avoid man-in-the-middle attacks.")
		}
	}
	disable("Password authentication", &k.cfg.PasswordAuthentication)
	disable("Keyboard-interactive authentication", &k.cfg.KbdInteractiveAuthentication)
	disable("Agent forwarding", &k.cfg.ForwardAgent)
	disable("X11 forwarding", &k.cfg.ForwardX11)
	disable("Port forwarding", &k.cfg.PortForwarding)
	if k.cfg.updatesHostKeys() {
		k.errorLines("UpdateHostkeys is disabled because the host key is not trusted.")
	}
	if k.cfg.ExitOnForwardFailure && cancelled {
		return &TextError{Text: "Error: forwarding disabled due to host key check failure", Err: errAuthentication}
	}
	return nil
}

// unknown decides on a host that no file knows.
func (k *hostKeyChecker) unknown(key ssh.PublicKey) error {
	switch k.strict {
	case strictYes:
		k.errorLines(fmt.Sprintf("No %s host key is known for %s and you have requested strict checking.", keyTypeName(key), k.host.name))
		return errHostKey
	case strictAsk:
		accepted, err := k.ask(key)
		if err != nil {
			return err
		}
		if !accepted {
			return errHostKey
		}
		k.vouches = true
	}
	k.remember(key)
	return nil
}

// remember adds the key to the first user file. Failing to is worth a line, not the connection.
func (k *hostKeyChecker) remember(key ssh.PublicKey) {
	file := k.cfg.UserKnownHostsFile[0]
	if err := appendKnownHost(file, k.host.name, key, k.cfg.HashKnownHosts); err != nil {
		k.cfg.Logf(1, "known hosts: %v", err)
		k.cfg.Logf(0, "Failed to add the host to the list of known hosts (%s).", file)
		return
	}
	k.cfg.Logf(0, "Warning: Permanently added '%s' (%s) to the list of known hosts.", k.host.name, keyTypeName(key))
}

// ask puts OpenSSH's question. Without anybody to ask the answer is no, and nothing is printed.
func (k *hostKeyChecker) ask(key ssh.PublicKey) (bool, error) {
	if k.cfg.BatchMode {
		return false, nil
	}
	fingerprint := k.cfg.fingerprint(key)
	prompt := k.question(key, fingerprint)
	for {
		answer, err := k.cfg.Prompt.Question(k.ctx, prompt)
		if err != nil {
			return false, err
		}
		if word := strings.FieldsFunc(answer, isBlank); len(word) > 0 {
			answer = word[0]
		} else {
			answer = ""
		}
		switch {
		case answer == "" || strings.EqualFold(answer, "no"):
			return false, nil
		case answer == fingerprint || strings.EqualFold(answer, "yes"):
			return true, nil
		}
		prompt = "Please type 'yes', 'no' or the fingerprint: "
	}
}

func isBlank(r rune) bool { return r == ' ' || r == '\t' }

// errorLines logs each line at the level of errors.
func (k *hostKeyChecker) errorLines(lines ...string) {
	for _, line := range lines {
		k.cfg.Logf(-1, "%s", line)
	}
}

// sameKey reports whether two keys are the same, as certificates as well where they are some.
func sameKey(a, b ssh.PublicKey) bool {
	return a.Type() == b.Type() && string(a.Marshal()) == string(b.Marshal())
}
