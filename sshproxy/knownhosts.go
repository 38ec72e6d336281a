package sshproxy

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Markers of a known_hosts line (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
const (
	markerCA      = "@cert-authority"
	markerRevoked = "@revoked"
)

// maxKnownHostsLine bounds one line; OpenSSH's reader stops at its packet limit, far above.
const maxKnownHostsLine = 64 << 10

// knownHost is one line of a known_hosts file.
type knownHost struct {
	file   string
	line   int
	marker string // "", markerCA or markerRevoked
	names  string // as written: patterns, or one hashed name
	key    ssh.PublicKey

	command bool // of KnownHostsCommand's output
}

// knownHostsName returns the name under which a host is looked up and written: the alias as it is,
// the host in lower case, in brackets with any port but 22 (sshconnect.c, get_hostfile_hostname_ipaddr).
func (cfg *Config) knownHostsName() string {
	if cfg.HostKeyAlias != "" {
		return cfg.HostKeyAlias
	}
	return hostPort(strings.ToLower(cfg.Host), cfg.Port)
}

// hostPort is put_host_port of misc.c.
func hostPort(host string, port int) string {
	if port == defaultPort {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(port)
}

// parseKnownHost reads one line. ok is false for blank lines, comments and lines that OpenSSH would
// skip: unknown markers, unknown key types, broken base64.
func parseKnownHost(line []byte) (entry knownHost, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) == 0 || fields[0][0] == '#' {
		return knownHost{}, false
	}
	if fields[0][0] == '@' {
		entry.marker = string(fields[0])
		if entry.marker != markerCA && entry.marker != markerRevoked {
			return knownHost{}, false
		}
		fields = fields[1:]
	}
	if len(fields) < 3 {
		return knownHost{}, false
	}
	blob, err := base64.StdEncoding.DecodeString(string(fields[2]))
	if err != nil {
		return knownHost{}, false
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil || key.Type() != string(fields[1]) {
		return knownHost{}, false
	}
	entry.names, entry.key = string(fields[0]), key
	return entry, true
}

// matches reports whether the line speaks of name.
func (k *knownHost) matches(name string) bool {
	if strings.HasPrefix(k.names, hashMagic) {
		return matchHashed(k.names, name)
	}
	return matchNames(k.names, name)
}

// hashMagic begins a hashed name: |1|salt|HMAC-SHA1(salt, name)|, both in base64 (hostfile.c).
const hashMagic = "|1|"

func matchHashed(hashed, name string) bool {
	salt64, sum64, found := strings.Cut(hashed[len(hashMagic):], "|")
	if !found {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil || len(salt) != sha1.Size {
		return false
	}
	sum, err := base64.StdEncoding.DecodeString(sum64)
	return err == nil && hmac.Equal(sum, hashName(salt, name))
}

func hashName(salt []byte, name string) []byte {
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return mac.Sum(nil)
}

// matchNames applies a comma-separated list of patterns; a matching negated one overrides all others
// (match.c, match_hostname).
func matchNames(list, name string) bool {
	name = strings.ToLower(name)
	matched := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if !matchPattern(strings.ToLower(pattern), name) {
			continue
		}
		if negated {
			return false
		}
		matched = true
	}
	return matched
}

// matchPattern knows * and ? only. It remembers the last star alone, so its work is at most the
// product of both lengths, whatever the pattern.
func matchPattern(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// scanKnownHosts calls visit for every usable line of the files, in order, until it returns false.
// A file that is missing or cannot be read has no lines; a line that is too long ends its file.
func scanKnownHosts(files []string, visit func(*knownHost) bool) {
	for _, file := range files {
		if !scanKnownHostsFile(file, visit) {
			return
		}
	}
}

func scanKnownHostsFile(file string, visit func(*knownHost) bool) bool {
	f, err := os.Open(file)
	if err != nil {
		return true
	}
	defer f.Close()
	return scanKnownHostsReader(f, file, visit)
}

func scanKnownHostsReader(r io.Reader, file string, visit func(*knownHost) bool) bool {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxKnownHostsLine)
	for n := 1; lines.Scan(); n++ {
		entry, ok := parseKnownHost(lines.Bytes())
		if !ok {
			continue
		}
		entry.file, entry.line = file, n
		if !visit(&entry) {
			return false
		}
	}
	return true
}
