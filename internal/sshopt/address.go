package sshopt

import (
	"bufio"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// defaultPort is ssh's.
const defaultPort = 22

// servicesFile is services(5). It is read only for a port that isn't a number.
const servicesFile = "/etc/services"

// parsePort reads a port's number or the name of a TCP service (a2port, misc.c).
func parsePort(s string) (int, bool) {
	if n, failure := atoi(s); failure == "" && n <= 65535 {
		return n, true
	}
	if s == "" || strings.ContainsAny(s, " \t") {
		return 0, false
	}
	return servicePort(s)
}

// servicePort looks a name up as getservbyname(3) does.
func servicePort(name string) (int, bool) {
	f, err := os.Open(servicesFile)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for scanner := bufio.NewScanner(f); scanner.Scan(); {
		text, _, _ := strings.Cut(scanner.Text(), "#")
		words := strings.Fields(text)
		if len(words) < 2 {
			continue
		}
		number, ok := strings.CutSuffix(words[1], "/tcp")
		if !ok {
			continue
		}
		for i, word := range words {
			if i != 1 && word == name {
				n, err := strconv.Atoi(number)
				return n, err == nil
			}
		}
	}
	return 0, false
}

// cutHostPort splits host:port, where the host may stand in brackets (hpdelim, misc.c). port is ""
// when there is none.
func cutHostPort(s string) (host, port string, ok bool) {
	end := strings.IndexAny(s, ":/")
	if strings.HasPrefix(s, "[") {
		end = strings.IndexByte(s, ']') + 1
		if end == 0 {
			return "", "", false
		}
	}
	if end < 0 || end == len(s) {
		return unbracket(s), "", s != ""
	}
	if s[end] != ':' {
		return "", "", false
	}
	return unbracket(s[:end]), s[end+1:], end > 0
}

func unbracket(s string) string {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		return s[1 : len(s)-1]
	}
	return s
}

// parseUserHostPort reads [user@]host[:port] (parse_user_host_port, misc.c).
func parseUserHostPort(s string) (user, host string, port int, ok bool) {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if i == 0 {
			return "", "", 0, false
		}
		user, s = s[:i], s[i+1:]
	}
	host, portText, ok := cutHostPort(s)
	if !ok {
		return "", "", 0, false
	}
	if portText != "" {
		port, ok = parsePort(portText)
		ok = ok && port > 0
	}
	return user, host, port, ok
}

var (
	errNotURI = errors.New("not an ssh:// URI")
	errBadURI = errors.New("malformed ssh:// URI")
)

// parseSSHURI reads ssh://[user[;params]@]host[:port][/] (parse_uri, misc.c). The parameters are
// dropped; a path is an error.
func parseSSHURI(s string) (user, host string, port int, err error) {
	s, ok := strings.CutPrefix(s, "ssh://")
	if !ok {
		return "", "", 0, errNotURI
	}
	if info, rest, ok := strings.Cut(s, "@"); ok {
		info, _, _ = strings.Cut(info, ";")
		if user, ok = unescape(info); !ok || info == "" {
			return "", "", 0, errBadURI
		}
		s = rest
	}
	end := strings.IndexAny(s, ":/")
	if strings.HasPrefix(s, "[") {
		end = strings.IndexByte(s, ']') + 1
		if end == 0 {
			return "", "", 0, errBadURI
		}
	}
	rest := ""
	if end >= 0 {
		s, rest = s[:end], s[end:]
	}
	if host = strings.TrimSuffix(unbracket(s), "."); checkDomain(unbracket(s)) != "" {
		return "", "", 0, errBadURI
	}
	if portText, ok := strings.CutPrefix(rest, ":"); ok {
		portText, rest, _ = strings.Cut(portText, "/")
		rest = "/" + rest
		if portText != "" {
			if port, ok = parsePort(portText); !ok || port == 0 {
				return "", "", 0, errBadURI
			}
		}
	}
	if rest != "" && rest != "/" {
		return "", "", 0, errBadURI
	}
	return user, host, port, nil
}

// unescape undoes the escapes of a URI, where + is a space.
func unescape(s string) (string, bool) {
	if !strings.ContainsAny(s, "%+") {
		return s, true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '+':
			b.WriteByte(' ')
		case '%':
			if i+2 >= len(s) {
				return "", false
			}
			c, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", false
			}
			b.Write(c)
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), true
}

// parseAddress returns the usual form of an address. Like getaddrinfo(3), it knows IPv4 addresses
// of one to three numbers, and numbers in octal and hexadecimal.
func parseAddress(s string) (string, bool) {
	if address, err := netip.ParseAddr(s); err == nil {
		return address.String(), true
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return "", false
	}
	var sum uint64
	for i, part := range parts {
		if part == "" || strings.Contains(part, "_") || !isAlnum(part[0]) || part[0] > '9' {
			return "", false
		}
		n, err := strconv.ParseUint(part, 0, 32)
		left := 4 - i // bytes that the last number fills
		last := i == len(parts)-1
		if err != nil || !last && n > 255 || last && n>>(8*left) != 0 {
			return "", false
		}
		if last {
			sum |= n
		} else {
			sum |= n << (8 * (left - 1))
		}
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}).String(), true
}

// looksLikeAddress reports whether a name may only be an address, valid or not (is_addr_fast,
// ssh.c).
func looksLikeAddress(s string) bool {
	return strings.ContainsAny(s, "%:") || strings.Trim(s, "0123456789.") == ""
}
