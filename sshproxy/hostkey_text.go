package sshproxy

import (
	"crypto/ecdsa"
	"crypto/md5"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// warningRule frames OpenSSH's warnings.
const warningRule = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@"

// revoked refuses a key that a file marks as revoked, unless checking is off.
func (k *hostKeyChecker) revoked(name string, key ssh.PublicKey) error {
	k.errorLines(
		warningRule,
		"@       WARNING: REVOKED HOST KEY DETECTED!               @",
		warningRule,
		fmt.Sprintf("The %s host key for %s is marked as revoked.", keyTypeName(key), name),
		"This could mean that a stolen key is being used to",
		"impersonate this host.",
	)
	if k.strict == strictOff {
		return k.letThrough()
	}
	k.errorLines(fmt.Sprintf("%s host key for %s was revoked and you have requested strict checking.", keyTypeName(key), name))
	return errHostKey
}

// differs refuses a key other than the known one, unless checking is off. The last two lines about the
// offending one are Debian's.
func (k *hostKeyChecker) differs(key ssh.PublicKey, found *knownHost) error {
	k.errorLines(
		warningRule,
		"@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @",
		warningRule,
		"IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!",
		"Someone could be eavesdropping on you right now (man-in-the-middle attack)!",
		"It is also possible that a host key has just been changed.",
		fmt.Sprintf("The fingerprint for the %s key sent by the remote host is\n%s.", keyTypeName(key), k.cfg.fingerprint(key)),
		"Please contact your system administrator.",
	)
	if files := k.files(); len(files) > 0 {
		k.errorLines(fmt.Sprintf("Add correct host key in %s to get rid of this message.", files[0]))
	}
	k.errorLines(
		fmt.Sprintf("Offending %s key in %s:%d", keyTypeName(found.key), found.file, found.line),
		"  remove with:",
		fmt.Sprintf("  ssh-keygen -f %q -R %q", found.file, k.host.name),
	)
	if k.strict == strictOff {
		return k.letThrough()
	}
	k.errorLines(fmt.Sprintf("Host key for %s has changed and you have requested strict checking.", k.host.name))
	return errHostKey
}

// question is the text that sshpass, Ansible's askpass and mitogen recognise.
func (k *hostKeyChecker) question(key ssh.PublicKey, fingerprint string) string {
	address := "<no hostip for proxy command>"
	if k.cfg.Addr != "" {
		address = hostPort(k.cfg.Addr, k.cfg.Port)
	}
	art := ""
	if k.cfg.VisualHostKey {
		art = k.cfg.randomArt(key) + "\n"
	}
	return fmt.Sprintf("The authenticity of host '%s (%s)' can't be established.\n", k.host.name, address) +
		fmt.Sprintf("%s key fingerprint is %s.\n", keyTypeName(key), fingerprint) + art +
		k.otherNames(key) +
		"Are you sure you want to continue connecting (yes/no/[fingerprint])? "
}

// maxOtherNames is how many other names OpenSSH lists before it says that there are more.
const maxOtherNames = 8

// otherNames tells under which other names the same key is known (sshconnect.c, hostkeys_find_by_key_cb).
func (k *hostKeyChecker) otherNames(key ssh.PublicKey) string {
	var names []string
	scanKnownHosts(k.files(), func(entry *knownHost) bool {
		if entry.marker == "" && !entry.matches(k.host.name) && sameKey(entry.key, key) {
			name := entry.names
			if strings.HasPrefix(name, hashMagic) {
				name = "[hashed name]"
			}
			names = append(names, fmt.Sprintf("    %s:%d: %s\n", belowHome(entry.file), entry.line, printable(name)))
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

// belowHome shortens a path in the folder that $HOME names (sshconnect.c, try_tilde_unexpand).
func belowHome(path string) string {
	home := strings.TrimSuffix(os.Getenv("HOME"), "/") + "/"
	if rest, ok := strings.CutPrefix(path, home); ok && home != "/" {
		return "~/" + rest
	}
	return path
}

// showArt is VisualHostKey for a known key.
func (k *hostKeyChecker) showArt(key ssh.PublicKey) {
	if k.cfg.VisualHostKey {
		k.cfg.Logf(0, "Host key fingerprint is %s\n%s", k.cfg.fingerprint(key), k.cfg.randomArt(key))
	}
}

// fingerprint is that of a key, or of the key in a certificate, as FingerprintHash wants it.
func (cfg *Config) fingerprint(key ssh.PublicKey) string {
	if cfg.FingerprintHash == hashMD5 {
		return hashMD5 + ":" + ssh.FingerprintLegacyMD5(plainKey(key))
	}
	return ssh.FingerprintSHA256(plainKey(key))
}

const (
	hashMD5    = "MD5"
	hashSHA256 = "SHA256"
)

// The field of the picture and its characters, by how often a place was visited; the last two are where the
// walk began and ended (sshkey.c, fingerprint_randomart).
const (
	artWidth  = 17
	artHeight = 9
	artChars  = " .o+=*BOX@%&#/^SE"
)

// randomArt draws a key's fingerprint: a walk in diagonal steps that the hash's bits take from the middle.
func (cfg *Config) randomArt(key ssh.PublicKey) string {
	name, blob := hashSHA256, plainKey(key).Marshal()
	var hash []byte
	if cfg.FingerprintHash == hashMD5 {
		sum := md5.Sum(blob)
		name, hash = hashMD5, sum[:]
	} else {
		sum := sha256.Sum256(blob)
		hash = sum[:]
	}
	const start, end = len(artChars) - 2, len(artChars) - 1
	var field [artHeight][artWidth]int
	x, y := artWidth/2, artHeight/2
	for _, b := range hash {
		for range 4 {
			x = min(max(x+int(b&1)*2-1, 0), artWidth-1)
			y = min(max(y+int(b>>1&1)*2-1, 0), artHeight-1)
			field[y][x] = min(field[y][x]+1, start-1)
			b >>= 2
		}
	}
	field[artHeight/2][artWidth/2], field[y][x] = start, end

	title := fmt.Sprintf("[%s %d]", keyTypeName(key), keyBits(key))
	if len(title) > artWidth {
		title = "[" + keyTypeName(key) + "]"
	}
	var b strings.Builder
	b.WriteString(artBorder(title) + "\n")
	for _, row := range field {
		b.WriteByte('|')
		for _, n := range row {
			b.WriteByte(artChars[n])
		}
		b.WriteString("|\n")
	}
	b.WriteString(artBorder("[" + name + "]"))
	return b.String()
}

func artBorder(title string) string {
	left := (artWidth - len(title)) / 2
	return "+" + strings.Repeat("-", left) + title + strings.Repeat("-", artWidth-len(title)-left) + "+"
}

// keyBits is a key's size as OpenSSH counts it (sshkey.c, sshkey_size).
func keyBits(key ssh.PublicKey) int {
	if plainKey(key).Type() == "ssh-dss" {
		return 1024 // it knows no other
	}
	if crypto, ok := plainKey(key).(ssh.CryptoPublicKey); ok {
		switch public := crypto.CryptoPublicKey().(type) {
		case *rsa.PublicKey:
			return public.N.BitLen()
		case *ecdsa.PublicKey:
			return public.Params().BitSize
		}
	}
	return 256 // the curve of all the others
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
