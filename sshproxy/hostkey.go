package sshproxy

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

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

// hostKeyChecker decides on the node's host key as check_host_key of OpenSSH's sshconnect.c does,
// from the files as they were before the connection was made.
type hostKeyChecker struct {
	ctx    context.Context // the life of one handshake
	cfg    *Config
	strict string
	name   string // as looked up, with its port

	known   []knownHost // lines that speak of name
	plain   []knownHost // lines that speak of the host without its port; empty where that is name itself
	changed bool        // a key that does not match was let through
}

func newHostKeyChecker(ctx context.Context, cfg *Config) *hostKeyChecker {
	k := &hostKeyChecker{ctx: ctx, cfg: cfg, name: cfg.knownHostsName(), strict: cfg.StrictHostKeyChecking}
	switch k.strict {
	case "":
		k.strict = strictAsk
	case "no":
		k.strict = strictOff
	}
	plainName := strings.ToLower(cfg.Host)
	tryPlain := cfg.HostKeyAlias == "" && plainName != k.name
	scanKnownHosts(k.files(), func(entry *knownHost) bool {
		if entry.matches(k.name) {
			k.known = append(k.known, *entry)
		}
		if tryPlain && entry.matches(plainName) {
			k.plain = append(k.plain, *entry)
		}
		return true
	})
	return k
}

func (k *hostKeyChecker) files() []string {
	return slices.Concat(k.cfg.UserKnownHostsFile, k.cfg.GlobalKnownHostsFile)
}

// algorithms returns the host key algorithms to offer, those whose key is already known first: else
// the node might choose a type that is new to us, and a known host would look changed
// (sshconnect2.c, order_hostkeyalgs).
func (k *hostKeyChecker) algorithms() ([]string, error) {
	algorithms := ssh.SupportedAlgorithms().HostKeys
	if asked := k.cfg.HostKeyAlgorithms; len(asked) > 0 {
		known := append(algorithms, ssh.InsecureAlgorithms().HostKeys...)
		if algorithms = intersect(asked, known); len(algorithms) == 0 {
			return nil, fmt.Errorf("no supported algorithm in HostKeyAlgorithms=%s", strings.Join(asked, ","))
		}
	}
	if k.cfg.HostKeyAlgorithmsFixed {
		return algorithms, nil
	}
	first, last := make([]string, 0, len(algorithms)), []string(nil)
	for _, algorithm := range algorithms {
		if k.prefers(algorithm) {
			first = append(first, algorithm)
		} else {
			last = append(last, algorithm)
		}
	}
	return append(first, last...), nil
}

// prefers reports whether a key usable with the algorithm is known: the type itself, or for
// certificates any authority for this host.
func (k *hostKeyChecker) prefers(algorithm string) bool {
	base, isCert := strings.CutSuffix(algorithm, certSuffix)
	switch base {
	case ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512:
		base = ssh.KeyAlgoRSA
	}
	entries := k.known
	if len(entries) == 0 {
		entries = k.plain
	}
	return slices.ContainsFunc(entries, func(entry knownHost) bool {
		if isCert {
			return entry.marker == markerCA
		}
		return entry.marker == "" && entry.key.Type() == base
	})
}

// check is the ssh.HostKeyCallback. A refused key is a *TextError; the lines that explain it have
// been logged.
func (k *hostKeyChecker) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	if k.cfg.hostKey != nil {
		if sameKey(k.cfg.hostKey, key) {
			return nil
		}
		return &TextError{Text: textHostKeyFailed, Err: errAuthentication}
	}
	if cert, ok := key.(*ssh.Certificate); ok {
		done, err := k.checkCertificate(cert)
		if done || err != nil {
			return err
		}
		k.cfg.Logf(1, "No matching CA found. Retry with plain key")
		key = cert.Key
	}
	status, found := lookup(k.known, key)
	switch status {
	case hostKeyOK:
		k.cfg.Logf(1, "Host '%s' is known and matches the %s host key.", k.name, keyTypeName(key))
		k.cfg.Logf(1, "Found key in %s:%d", found.file, found.line)
		return nil
	case hostKeyRevoked:
		return k.revoked(key)
	case hostKeyDiffers:
		return k.differs(key, found)
	}
	if status, found := lookup(k.plain, key); status == hostKeyOK {
		k.cfg.Logf(1, "found matching key w/out port in %s:%d", found.file, found.line)
		return nil
	}
	return k.unknown(key)
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

// checkCertificate reports whether the certificate settles the matter: signed by an authority for
// this host and valid, or revoked. Else its plain key is tried, as OpenSSH does.
func (k *hostKeyChecker) checkCertificate(cert *ssh.Certificate) (done bool, err error) {
	authority := (*knownHost)(nil)
	for i := range k.known {
		entry := &k.known[i]
		switch entry.marker {
		case markerRevoked:
			if sameKey(entry.key, cert.SignatureKey) || sameKey(entry.key, cert.Key) {
				return true, k.revoked(cert)
			}
		case markerCA:
			if authority == nil && sameKey(entry.key, cert.SignatureKey) {
				authority = entry
			}
		}
	}
	if authority == nil {
		return false, nil
	}
	host := k.cfg.HostKeyAlias
	if host == "" {
		host = strings.ToLower(k.cfg.Host)
	}
	if cert.CertType != ssh.HostCert {
		k.cfg.Logf(-1, "Certificate invalid: not a host certificate")
		return false, nil
	}
	if err := new(ssh.CertChecker).CheckCert(host, cert); err != nil {
		k.cfg.Logf(-1, "%s", printable(strings.TrimPrefix(err.Error(), "ssh: ")))
		return false, nil
	}
	k.cfg.Logf(1, "Found CA key in %s:%d", authority.file, authority.line)
	return true, nil
}

// revoked refuses a key that a file marks as revoked, unless checking is off.
func (k *hostKeyChecker) revoked(key ssh.PublicKey) error {
	k.errorLines(
		warningRule,
		"@       WARNING: REVOKED HOST KEY DETECTED!               @",
		warningRule,
		fmt.Sprintf("The %s host key for %s is marked as revoked.", keyTypeName(key), k.name),
		"This could mean that a stolen key is being used to",
		"impersonate this host.",
	)
	if k.strict == strictOff {
		return k.letThrough()
	}
	k.errorLines(fmt.Sprintf("%s host key for %s was revoked and you have requested strict checking.", keyTypeName(key), k.name))
	return &TextError{Text: textHostKeyFailed}
}

// differs refuses a key other than the known one, unless checking is off.
func (k *hostKeyChecker) differs(key ssh.PublicKey, found *knownHost) error {
	k.errorLines(
		warningRule,
		"@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
		warningRule,
		"IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!",
		"Someone could be eavesdropping on you right now (man-in-the-middle attack)!",
		"It is also possible that a host key has just been changed.",
		fmt.Sprintf("The fingerprint for the %s key sent by the remote host is\n%s.", keyTypeName(key), ssh.FingerprintSHA256(key)),
		"Please contact your system administrator.",
	)
	if len(k.cfg.UserKnownHostsFile) > 0 {
		k.errorLines(fmt.Sprintf("Add correct host key in %s to get rid of this message.", k.cfg.UserKnownHostsFile[0]))
	}
	k.errorLines(
		fmt.Sprintf("Offending %s key in %s:%d", keyTypeName(found.key), found.file, found.line),
		"  remove with:",
		fmt.Sprintf("  ssh-keygen -f %q -R %q", found.file, k.name),
	)
	if k.strict == strictOff {
		return k.letThrough()
	}
	k.errorLines(fmt.Sprintf("Host key for %s has changed and you have requested strict checking.", k.name))
	return &TextError{Text: textHostKeyFailed}
}

// letThrough goes on with an unproven node and takes away what it could steal.
func (k *hostKeyChecker) letThrough() error {
	k.changed = true
	disable := func(what string, enabled *bool) {
		if *enabled {
			*enabled = false
			k.errorLines(what + " is disabled to avoid man-in-the-middle attacks.")
		}
	}
	disable("Password authentication", &k.cfg.PasswordAuthentication)
	disable("Keyboard-interactive authentication", &k.cfg.KbdInteractiveAuthentication)
	disable("Agent forwarding", &k.cfg.ForwardAgent)
	return nil
}

// unknown decides on a host that no file knows.
func (k *hostKeyChecker) unknown(key ssh.PublicKey) error {
	switch k.strict {
	case strictYes:
		k.errorLines(fmt.Sprintf("No %s host key is known for %s and you have requested strict checking.", keyTypeName(key), k.name))
		return &TextError{Text: textHostKeyFailed}
	case strictAsk:
		accepted, err := k.ask(key)
		if err != nil {
			return err
		}
		if !accepted {
			return &TextError{Text: textHostKeyFailed}
		}
	}
	k.remember(key)
	return nil
}

// remember adds the key to the first user file. Failing to is worth a line, not the connection.
func (k *hostKeyChecker) remember(key ssh.PublicKey) {
	if len(k.cfg.UserKnownHostsFile) == 0 {
		return
	}
	file := k.cfg.UserKnownHostsFile[0]
	if err := appendKnownHost(file, k.name, key, k.cfg.HashKnownHosts); err != nil {
		k.cfg.Logf(1, "known hosts: %v", err)
		k.cfg.Logf(0, "Failed to add the host to the list of known hosts (%s).", file)
		return
	}
	k.cfg.Logf(0, "Warning: Permanently added '%s' (%s) to the list of known hosts.", k.name, keyTypeName(key))
}

// ask puts OpenSSH's question. Without anybody to ask the answer is no, and nothing is printed.
func (k *hostKeyChecker) ask(key ssh.PublicKey) (bool, error) {
	if k.cfg.BatchMode {
		return false, nil
	}
	fingerprint := ssh.FingerprintSHA256(key)
	prompt := k.question(key, fingerprint)
	for {
		answer, err := k.cfg.Prompt.Question(k.ctx, prompt)
		if err != nil {
			return false, err
		}
		answer, _, _ = strings.Cut(strings.TrimLeft(answer, " \t"), " ")
		switch {
		case answer == "" || strings.EqualFold(answer, "no"):
			return false, nil
		case answer == fingerprint || strings.EqualFold(answer, "yes"):
			return true, nil
		}
		prompt = "Please type 'yes', 'no' or the fingerprint: "
	}
}

// question is the text that sshpass, Ansible's askpass and mitogen recognise.
func (k *hostKeyChecker) question(key ssh.PublicKey, fingerprint string) string {
	address := "<no hostip for proxy command>"
	if k.cfg.Addr != "" {
		address = hostPort(k.cfg.Addr, k.cfg.Port)
	}
	return fmt.Sprintf("The authenticity of host '%s (%s)' can't be established.\n", k.name, address) +
		fmt.Sprintf("%s key fingerprint is %s.\n", keyTypeName(key), fingerprint) +
		k.otherNames(key) +
		"Are you sure you want to continue connecting (yes/no/[fingerprint])? "
}

// maxOtherNames is how many other names OpenSSH lists before it says that there are more.
const maxOtherNames = 8

// otherNames tells under which other names the same key is known.
func (k *hostKeyChecker) otherNames(key ssh.PublicKey) string {
	var names []string
	scanKnownHosts(k.files(), func(entry *knownHost) bool {
		if entry.marker == "" && sameKey(entry.key, key) {
			name := entry.names
			if strings.HasPrefix(name, hashMagic) {
				name = "[hashed name]"
			}
			names = append(names, fmt.Sprintf("    %s:%d: %s\n", entry.file, entry.line, printable(name)))
		}
		return true
	})
	if len(names) == 0 {
		return "This key is not known by any other names.\n"
	}
	more := ""
	if n := len(names) - maxOtherNames; n > 0 {
		names = names[:maxOtherNames]
		more = fmt.Sprintf("    (%d additional names omitted)\n", n)
	}
	return "This host key is known by the following other names/addresses:\n" + strings.Join(names, "") + more
}

// errorLines logs each line at the level of errors.
func (k *hostKeyChecker) errorLines(lines ...string) {
	for _, line := range lines {
		k.cfg.Logf(-1, "%s", line)
	}
}

// warningRule frames OpenSSH's warnings.
const warningRule = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@"

func sameKey(a, b ssh.PublicKey) bool {
	return a.Type() == b.Type() && string(a.Marshal()) == string(b.Marshal())
}

// keyTypeName is OpenSSH's short name of a key's type (sshkey.c, sshkey_type).
func keyTypeName(key ssh.PublicKey) string {
	base, isCert := strings.CutSuffix(key.Type(), certSuffix)
	name, ok := keyTypeNames[strings.TrimSuffix(base, "@openssh.com")]
	if !ok {
		name = "unknown"
	}
	if isCert {
		name += "-CERT"
	}
	return name
}

var keyTypeNames = map[string]string{
	"ssh-rsa":                "RSA",
	"ssh-dss":                "DSA",
	"ssh-ed25519":            "ED25519",
	"ecdsa-sha2-nistp256":    "ECDSA",
	"ecdsa-sha2-nistp384":    "ECDSA",
	"ecdsa-sha2-nistp521":    "ECDSA",
	"sk-ssh-ed25519":         "ED25519-SK",
	"sk-ecdsa-sha2-nistp256": "ECDSA-SK",
}
