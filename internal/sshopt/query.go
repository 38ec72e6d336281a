package sshopt

import "strings"

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
		return matching(&algCiphers, "*-gcm@*,chacha20-*"), true
	case "compression":
		return "none", true
	case "kex":
		return algKex.supported(), true
	case "key":
		return keyTypes("*"), true
	case "key-plain":
		return keyTypes("!*-cert-*,*"), true
	case "key-cert":
		return keyTypes("*-cert-*"), true
	case "key-sig":
		return keyNames("*"), true
	case "sig", "key-ca-sign":
		return keyNames("!*-cert-*,*"), true
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
func (f *family) supported() string { return matching(f, "*") }

// keyTypes lists the types of key. RSA is one whose signatures have names of their own.
func keyTypes(patterns string) string { return keyNames("!rsa-sha2-*," + patterns) }

// keyNames lists keys and signatures that serve a user and a host alike. Two that may be asked for aren't among
// them. Keys in a FIDO token: a user's work, but x/crypto/ssh takes no signature that the token wasn't touched for
// (its errSKMissingUserPresence), and nobody touches a host's. DSA: x/crypto/ssh can't read its files in OpenSSH's
// format, and OpenSSH 10 has dropped it.
func keyNames(patterns string) string { return matching(&algKeys, "!ssh-dss*,!sk-*,"+patterns) }

// matching lists those that patterns match.
func matching(f *family, patterns string) string {
	var names []string
	for _, name := range f.known {
		if f.supports(name) && matchList(name, patterns, false) > 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "\n")
}
