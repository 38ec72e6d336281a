package sshopt

import "strings"

// plainKeys are the kinds of keys that can be used, certificates are in certKeys. DSA isn't named, though it may be
// asked for: x/crypto/ssh can't read its files in OpenSSH's format, and OpenSSH 10 has dropped it.
var (
	plainKeys = []string{"ssh-ed25519", "sk-ssh-ed25519@openssh.com", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384",
		"ecdsa-sha2-nistp521", "sk-ecdsa-sha2-nistp256@openssh.com", "ssh-rsa"}
	certKeys = []string{"ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519-cert-v01@openssh.com",
		"ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp384-cert-v01@openssh.com",
		"ecdsa-sha2-nistp521-cert-v01@openssh.com", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
		"ssh-rsa-cert-v01@openssh.com"}
	rsaSignatures  = []string{"rsa-sha2-256", "rsa-sha2-512"}
	rsaCertificate = []string{"rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512-cert-v01@openssh.com"}
)

const queries = "cipher\ncipher-auth\ncompression\nkex\nkey\nkey-ca-sign\nkey-cert\nkey-plain\nkey-sig\nmac\n" +
	"protocol-version\nsig"

// QueryText returns the answer to -Q: names, one a line, with what this program can really do.
func (o *Options) QueryText() string {
	text, _ := queryText(o.Query)
	return text + "\n"
}

// queryText answers a query. The words are matched as they are; the keywords in any case.
func queryText(word string) (string, bool) {
	switch word {
	case "cipher":
		return algCiphers.supported(), true
	case "cipher-auth":
		return joinLines(matching(&algCiphers, "*-gcm@*,chacha20-*")), true
	case "compression":
		return "none", true
	case "kex":
		return algKex.supported(), true
	case "key":
		return joinLines(plainKeys, certKeys), true
	case "key-plain":
		return joinLines(plainKeys), true
	case "key-cert":
		return joinLines(certKeys), true
	case "key-sig":
		return joinLines(plainKeys, certKeys, rsaSignatures, rsaCertificate), true
	case "sig", "key-ca-sign":
		return joinLines(plainKeys, rsaSignatures), true
	case "mac":
		return algMACs.supported(), true
	case "protocol-version":
		return "2", true
	case "help":
		return queries, true
	}
	switch lowerASCII(word) {
	case "ciphers":
		return queryText("cipher")
	case "macs":
		return queryText("mac")
	case "kexalgorithms":
		return queryText("kex")
	case "casignaturealgorithms":
		return queryText("sig")
	case "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes", "hostkeyalgorithms", "hostbasedkeytypes",
		"hostbasedacceptedkeytypes", "hostbasedacceptedalgorithms":
		return queryText("key-sig")
	}
	return "", false
}

// supported lists a family in the order of known, which is OpenSSH's for -Q.
func (f *family) supported() string { return joinLines(matching(f, "*")) }

func matching(f *family, patterns string) []string {
	var names []string
	for _, name := range f.known {
		if f.supports(name) && matchList(name, patterns, false) > 0 {
			names = append(names, name)
		}
	}
	return names
}

func joinLines(lists ...[]string) string {
	var all []string
	for _, list := range lists {
		all = append(all, list...)
	}
	return strings.Join(all, "\n")
}
