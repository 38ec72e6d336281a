package sshopt

import "strings"

// This file holds the parse functions of keywords with several values.

// alone reports whether word, which is one that stands for no list, may stand where it is: as the
// only argument.
func (l *line) alone(word string, index int) error {
	if index > 0 || len(l.args) > 0 {
		return l.bad("keyword " + l.word + " \"" + word + "\" argument must appear alone.")
	}
	return nil
}

// parseHostsFiles takes a list of files. The first line wins as a whole.
func parseHostsFiles(l *line) error {
	return l.names(l.kw.field(l.p).(*[]string), l.take())
}

func parseRevokedHostKeys(l *line) error { return l.names(&l.p.o.RevokedHostKeys, l.take()) }

// names takes words or a sole "none" into a list.
func (l *line) names(field *[]string, take bool) error {
	for i := 0; len(l.args) > 0; i++ {
		arg := l.next()
		if arg == "" {
			return l.bad("keyword " + l.word + " empty argument")
		}
		if isNone(arg) {
			if err := l.alone("none", i); err != nil {
				return err
			}
		}
		if !take {
			continue
		}
		if len(*field) == maxHostsFiles {
			return l.bad("too many " + l.word + " entries.")
		}
		*field = append(*field, arg)
	}
	return nil
}

// parseLogVerbose keeps only the first word, as OpenSSH does.
func parseLogVerbose(l *line) error {
	var words []string
	err := l.names(&words, true)
	if err == nil && len(words) > 0 && l.take() {
		l.p.o.LogVerbose = words[:1]
	}
	return err
}

func parseIdentityFile(l *line) error {
	arg, err := l.needed()
	if err != nil || !*l.active {
		return err
	}
	if len(l.p.o.IdentityFile) >= maxIdentityFiles {
		return l.bad("Too many identity files specified (max 100).")
	}
	l.p.addIdentity(Identity{Path: arg, Explicit: l.scope.user})
	return nil
}

// addIdentity adds a key file, once.
func (p *parser) addIdentity(id Identity) {
	p.mark(kwIdentityFile)
	for _, have := range p.o.IdentityFile {
		if have == id {
			p.log(2, "add_identity_file: ignoring duplicate key "+id.Path)
			return
		}
	}
	p.o.IdentityFile = append(p.o.IdentityFile, id)
}

func parseCertificateFile(l *line) error {
	arg, err := l.needed()
	if err != nil || !*l.active {
		return err
	}
	if len(l.p.o.CertificateFile) >= maxCertificateFiles {
		return l.bad("Too many certificate files specified (max 100).")
	}
	l.p.mark(kwCertificateFile)
	for _, have := range l.p.o.CertificateFile {
		if have == arg {
			l.p.log(2, "add_certificate_file: ignoring duplicate key "+arg)
			return nil
		}
	}
	l.p.o.CertificateFile = append(l.p.o.CertificateFile, arg)
	return nil
}

// parseSendEnv adds patterns to those of earlier lines; -PATTERN takes some away.
func parseSendEnv(l *line) error {
	for len(l.args) > 0 {
		arg := l.next()
		if arg == "" || strings.Contains(arg, "=") {
			return l.bad("Invalid environment name.")
		}
		if !*l.active {
			continue
		}
		l.p.mark(kwSendEnv)
		if !strings.HasPrefix(arg, "-") {
			l.p.o.SendEnv = append(l.p.o.SendEnv, arg)
			continue
		}
		kept := l.p.o.SendEnv[:0]
		for _, have := range l.p.o.SendEnv {
			if !matchPattern(have, arg[1:]) {
				kept = append(kept, have)
			}
		}
		l.p.o.SendEnv = kept
	}
	return nil
}

// parseSetEnv takes NAME=value words. The first line wins as a whole, and in it the first of a name.
func parseSetEnv(l *line) error {
	take := *l.active && len(l.p.o.SetEnv) == 0
	for len(l.args) > 0 {
		arg := l.next()
		name, _, ok := strings.Cut(arg, "=")
		if !ok {
			return l.bad("Invalid SetEnv.")
		}
		if take && !hasName(l.p.o.SetEnv, name) {
			l.p.mark(kwSetEnv)
			l.p.o.SetEnv = append(l.p.o.SetEnv, arg)
		}
	}
	return nil
}

func hasName(list []string, name string) bool {
	for _, have := range list {
		if strings.HasPrefix(have, name) && strings.HasPrefix(have[len(name):], "=") {
			return true
		}
	}
	return false
}

// parsePermitRemoteOpen takes host:port words, with * for either, or a sole any or none.
func parsePermitRemoteOpen(l *line) error {
	if len(l.args) == 0 {
		return l.fatal("missing permitremoteopen specification")
	}
	take := l.take()
	for i := 0; len(l.args) > 0; i++ {
		arg := l.next()
		if isNone(arg) || strings.EqualFold(arg, "any") {
			if err := l.alone(arg, i); err != nil {
				return err
			}
		} else {
			_, port, ok := cutHostPort(arg)
			if !ok {
				return l.fatal("missing host in permitremoteopen")
			}
			if n, ok := parsePort(port); port != "*" && (!ok || n == 0) {
				return l.fatal("bad port number in permitremoteopen")
			}
		}
		if take {
			l.p.o.PermitRemoteOpen = append(l.p.o.PermitRemoteOpen, arg)
		}
	}
	return nil
}

func parseCanonicalDomains(l *line) error {
	take := l.take()
	for i := 0; len(l.args) > 0; i++ {
		arg := l.next()
		if arg == "" {
			return l.bad("keyword canonicaldomains empty argument")
		}
		if isNone(arg) {
			if err := l.alone("none", i); err != nil {
				return err
			}
		}
		if failure := checkDomain(arg); failure != "" {
			return l.bad(failure)
		}
		if !take {
			continue
		}
		if len(l.p.o.CanonicalDomains) == maxCanonicalDomains {
			return l.bad("too many hostname suffixes.")
		}
		l.p.o.CanonicalDomains = append(l.p.o.CanonicalDomains, strings.TrimSuffix(lowerASCII(arg), "."))
	}
	return nil
}

// checkDomain says what is wrong with a domain's name (valid_domain, misc.c).
func checkDomain(name string) string {
	if name == "" {
		return "empty domain name"
	}
	if !isAlnum(name[0]) {
		return "domain name \"" + name + "\" starts with invalid character"
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c == '.' && i > 0 && name[i-1] == '.':
			return "domain name \"" + name + "\" contains consecutive separators"
		case !isAlnum(c) && c != '.' && c != '-' && c != '_':
			return "domain name \"" + name + "\" contains invalid characters"
		}
	}
	return ""
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// parsePermittedCNAMEs takes SOURCES:TARGETS words, a * for all, or a sole none.
func parsePermittedCNAMEs(l *line) error {
	take := l.take()
	for i := 0; len(l.args) > 0; i++ {
		arg := l.next()
		switch {
		case isNone(arg):
			if err := l.alone("none", i); err != nil {
				return err
			}
		case arg == "*":
			arg = "*:*"
		default:
			arg = lowerASCII(arg)
			if _, targets, ok := strings.Cut(arg, ":"); !ok || targets == "" {
				return l.bad("Invalid permitted CNAME \"" + arg + "\"")
			}
		}
		if !take {
			continue
		}
		if len(l.p.o.CanonicalizePermittedCNAMEs) == maxCanonicalDomains {
			return l.bad("too many permitted CNAMEs.")
		}
		l.p.o.CanonicalizePermittedCNAMEs = append(l.p.o.CanonicalizePermittedCNAMEs, arg)
	}
	return nil
}

// parseChannelTimeout takes TYPE=TIME words or a sole none (9.6 and later). It has no effect here.
func parseChannelTimeout(l *line) error {
	if len(l.args) == 0 {
		return l.fatal("no channeltimeout specified")
	}
	take := l.take()
	for i := 0; len(l.args) > 0; i++ {
		arg := l.next()
		if isNone(arg) {
			if err := l.alone("none", i); err != nil {
				return err
			}
		} else if kind, span, ok := strings.Cut(arg, "="); !ok || kind == "" || !validTime(span) {
			return l.fatal("invalid channel timeout " + arg)
		}
		if take {
			l.p.o.ChannelTimeout = append(l.p.o.ChannelTimeout, arg)
		}
	}
	return nil
}

func validTime(s string) bool {
	_, ok := parseTime(s)
	return ok
}
