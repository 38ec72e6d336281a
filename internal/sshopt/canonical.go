package sshopt

import "strings"

// canonicalize rewrites the host: addresses into their usual form, names into lower case, and,
// with CanonicalizeHostname, into the name that is found in one of CanonicalDomains
// (resolve_canonicalize, ssh.c).
func (p *parser) canonicalize() error {
	o := p.o
	if address, ok := parseAddress(o.Host); ok {
		o.Host = address
		return nil
	}
	if looksLikeAddress(o.Host) {
		return nil
	}
	o.Host = lowerASCII(o.Host)
	if o.CanonicalizeHostname == CanonicalizeNo {
		return nil
	}
	p.wantFinal = true
	direct := (o.ProxyCommand == "" || isNone(o.ProxyCommand)) && len(o.ProxyJump) == 0
	if !direct && o.CanonicalizeHostname != CanonicalizeAlways {
		return nil
	}
	if p.isTarget() {
		return nil // no name of the DNS
	}
	return p.resolveName()
}

// resolveName looks the host up below each domain.
func (p *parser) resolveName() error {
	o := p.o
	var names []string
	switch {
	case strings.HasSuffix(o.Host, "."):
		names = []string{o.Host}
	case strings.Count(o.Host, ".") > o.CanonicalizeMaxDots:
		return nil
	case len(o.CanonicalDomains) > 0 && !isNone(o.CanonicalDomains[0]):
		for _, domain := range o.CanonicalDomains {
			names = append(names, o.Host+"."+domain+".")
		}
	}
	if len(names) > 0 && p.env.Resolve == nil {
		return fatal("CanonicalizeHostname: not supported here; set it to no")
	}
	for _, name := range names {
		cname, ok := p.env.Resolve(name)
		if !ok {
			continue
		}
		o.Host = p.followCNAME(strings.TrimSuffix(name, "."), lowerASCII(strings.TrimSuffix(cname, ".")))
		return nil
	}
	if !o.CanonicalizeFallbackLocal {
		return fatal(baseName(p.env.Args0) + ": Could not resolve host \"" + o.Host + "\"")
	}
	return nil
}

// followCNAME returns the alias's name where CanonicalizePermittedCNAMEs lets it.
func (p *parser) followCNAME(name, cname string) string {
	if cname == "" || cname == name {
		return name
	}
	for _, rule := range p.o.CanonicalizePermittedCNAMEs {
		sources, targets, _ := strings.Cut(rule, ":")
		if matchList(name, sources, true) > 0 && matchList(cname, targets, true) > 0 {
			return cname
		}
	}
	return name
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
