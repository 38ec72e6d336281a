package sshopt

import (
	"crypto/sha1"
	"encoding/hex"
	"strconv"
	"strings"
)

// tokens are the values of the %-tokens (DEFAULT_CLIENT_PERCENT_EXPAND_ARGS,
// sshconnect.h). They are fields of a struct, since most are never asked for.
type tokens struct {
	host, original, port, user, alias, jump string
	env                                     *Environment
}

// expansion says what one string may contain.
type expansion struct {
	letters   string // tokens allowed beside %%
	variables bool   // ${VAR}
	later     string // tokens that stay, with %%, for a second expansion
}

var (
	expandAll     = expansion{letters: "CdhijkLlnpru", variables: true}
	expandCommand = expansion{letters: "CdhijkLlnpru"}
	expandLocal   = expansion{letters: "CdhijkLlnprTu"}
	expandProxy   = expansion{letters: "hknpr"}
	expandHost    = expansion{letters: "h"}
	expandUser    = expansion{letters: "dhijkLlnpu", variables: true}
	expandVars    = expansion{variables: true}
	expandKnown   = expansion{letters: "CdhijkLlnpru", variables: true, later: "fHIKt"}
)

// value returns what a token stands for.
func (t *tokens) value(letter byte) string {
	switch letter {
	case 'C':
		return t.connectionHash()
	case 'd':
		return t.env.Home
	case 'h':
		return t.host
	case 'i':
		return strconv.Itoa(t.env.UID)
	case 'j':
		return t.jump
	case 'k':
		return t.alias
	case 'L':
		short, _, _ := strings.Cut(t.env.Hostname, ".")
		return short
	case 'l':
		return t.env.Hostname
	case 'n':
		return t.original
	case 'p':
		return t.port
	case 'r':
		return t.user
	case 'T':
		return "NONE" // the tun device: there never is one
	case 'u':
		return t.env.LocalUser
	}
	return ""
}

// connectionHash is %C: SHA-1 of %l%h%p%r, as up to 9.5. Later ones append %j, so the two agree
// only where no ProxyJump is set. Control paths made of it must be those of the ssh that shares
// them, which here is 9.2.
func (t *tokens) connectionHash() string {
	sum := sha1.Sum([]byte(t.env.Hostname + t.host + t.port + t.user))
	return hex.EncodeToString(sum[:])
}

// expand replaces tokens and variables in s. The errors are OpenSSH's (vdollar_percent_expand,
// misc.c), one line for the cause and one for the function that gave up.
func (p *parser) expand(s string, what expansion, t *tokens) (string, error) {
	if !strings.Contains(s, "%") && (!what.variables || !strings.Contains(s, "${")) {
		return s, nil
	}
	gaveUp := "percent_expand: failed"
	if what.variables {
		gaveUp = "percent_dollar_expand: failed"
	}
	var b strings.Builder
	write := func(s string) {
		if what.later != "" {
			s = strings.ReplaceAll(s, "%", "%%")
		}
		b.WriteString(s)
	}
	missing := ""
	for i := 0; i < len(s); i++ {
		switch {
		case what.variables && strings.HasPrefix(s[i:], "${"):
			name, _, closed := strings.Cut(s[i+2:], "}")
			if !closed {
				return "", fatal("vdollar_percent_expand: environment variable '" + name + "' missing closing '}'\n" + gaveUp)
			}
			if name == "" {
				return "", fatal("vdollar_percent_expand: zero-length environment variable\n" + gaveUp)
			}
			value, ok := p.env.Getenv(name)
			if !ok {
				missing += "vdollar_percent_expand: env var ${" + name + "} has no value\n"
			}
			write(value)
			i += len("${") + len(name)
		case s[i] != '%' || what.letters == "":
			b.WriteByte(s[i])
		case i+1 == len(s):
			return "", fatal("vdollar_percent_expand: invalid format\n" + gaveUp)
		default:
			i++
			switch {
			case s[i] == '%':
				write("%")
			case strings.IndexByte(what.later, s[i]) >= 0:
				b.WriteString(s[i-1 : i+1])
			case strings.IndexByte(what.letters, s[i]) < 0:
				return "", fatal("vdollar_percent_expand: unknown key %" + s[i:i+1] + "\n" + gaveUp)
			default:
				write(t.value(s[i]))
			}
		}
	}
	if missing != "" {
		return "", fatal(missing + "invalid environment variable expansion")
	}
	return b.String(), nil
}

// expandEarly expands for Match exec and Include, while the configuration is still being read.
func (p *parser) expandEarly(s string, variables bool) (string, error) {
	host, err := p.hostSoFar()
	if err != nil {
		return "", err
	}
	port := p.o.Port
	if port == 0 {
		port = defaultPort
	}
	t := tokens{host: host, original: p.o.OriginalHost, port: strconv.Itoa(port), user: p.userSoFar(),
		alias: p.o.HostKeyAlias, jump: p.lastJump(), env: &p.env}
	if t.alias == "" {
		t.alias = host
	}
	return p.expand(s, expansion{letters: expandAll.letters, variables: variables}, &t)
}

// expandHostname returns what Hostname makes of the name typed.
func (p *parser) expandHostname() (string, error) {
	return p.expand(p.o.Hostname, expandHost, &tokens{host: p.o.OriginalHost, env: &p.env})
}

// expandTilde replaces a leading ~ or ~user.
func (p *parser) expandTilde(path string) (string, error) {
	if !strings.HasPrefix(path, "~") {
		return path, nil
	}
	user, rest, _ := strings.Cut(path[1:], "/")
	home := p.env.Home
	if user != "" {
		var ok bool
		if home, ok = p.env.HomeOf(user); !ok {
			return "", fatal("tilde_expand: No such user " + user)
		}
	}
	if !strings.HasSuffix(home, "/") {
		home += "/"
	}
	return home + strings.TrimLeft(rest, "/"), nil
}

// expandPath is expandTilde, then tokens and variables: what file names get.
func (p *parser) expandPath(path string, t *tokens) (string, error) {
	path, err := p.expandTilde(path)
	if err != nil {
		return "", err
	}
	return p.expand(path, expandAll, t)
}
