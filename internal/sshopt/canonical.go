package sshopt

import "strings"

// canonicalize rewrites the host: addresses into their usual form, names into lower case, and,
// with CanonicalizeHostname, into the name that is found in one of CanonicalDomains
// (resolve_canonicalize, ssh.c). Without one that is found, an alias of the name itself is still followed
// where CanonicalizePermittedCNAMEs lets it (main). Nodes are no names of the DNS.
func (p *parser) canonicalize() error {
	o := p.o
	address, ok := parseAddress(o.Host)
	why := "Name or service not known"
	if ok && (o.AddressFamily == "inet" || o.AddressFamily == "inet6") && strings.Contains(address, ":") != (o.AddressFamily == "inet6") {
		ok, why = false, "Address family for hostname not supported"
	}
	if ok {
		p.log(2, "resolve_canonicalize: hostname "+o.Host+" is address")
		if address != o.Host {
			p.log(2, "resolve_canonicalize: canonicalised address \""+o.Host+"\" => \""+address+"\"")
		}
		o.Host = address
		return nil
	}
	if looksLikeAddress(o.Host) {
		p.log(2, "resolve_addr: could not resolve name "+o.Host+" as address: "+why)
		p.log(1, "resolve_canonicalize: hostname "+o.Host+" is an unrecognised address")
		return nil
	}
	o.Host = lowerASCII(o.Host)
	direct := (o.ProxyCommand == "" || isNone(o.ProxyCommand)) && len(o.ProxyJump) == 0
	if !direct && o.CanonicalizeHostname != CanonicalizeAlways || p.isTarget() {
		return nil
	}
	if o.CanonicalizeHostname != CanonicalizeNo {
		if found, err := p.resolveName(); found || err != nil {
			return err
		}
	}
	if rules := o.CanonicalizePermittedCNAMEs; len(rules) == 0 || isNone(rules[0]) || p.env.Resolve == nil {
		return nil
	}
	cname, ok := p.env.Resolve(o.Host)
	switch {
	case ok:
		o.Host, _ = p.followCNAME(o.Host, cname)
	case direct:
		return fatal(baseName(p.env.Args0) + ": Could not resolve hostname " + o.Host + ": Name or service not known")
	}
	return nil
}

// resolveName looks the host up below each domain, and takes the first name that is found.
func (p *parser) resolveName() (found bool, err error) {
	o := p.o
	var names []string
	switch {
	case strings.HasSuffix(o.Host, "."):
		names = []string{o.Host}
	case strings.Count(o.Host, ".") > o.CanonicalizeMaxDots:
		return false, nil
	case len(o.CanonicalDomains) > 0 && !isNone(o.CanonicalDomains[0]):
		for _, domain := range o.CanonicalDomains {
			names = append(names, o.Host+"."+domain+".")
		}
	}
	if len(names) > 0 && p.env.Resolve == nil {
		return false, fatal("CanonicalizeHostname: not supported here; set it to no")
	}
	for _, name := range names {
		cname, ok := p.env.Resolve(name)
		if !ok {
			continue
		}
		name, followed := p.followCNAME(strings.TrimSuffix(name, "."), cname)
		if !followed {
			p.log(1, "Canonicalized hostname \""+o.Host+"\" => \""+name+"\"")
		}
		o.Host = name
		return true, nil
	}
	if !o.CanonicalizeFallbackLocal {
		return false, fatal(baseName(p.env.Args0) + ": Could not resolve host \"" + o.Host + "\"")
	}
	p.log(2, "resolve_canonicalize: host "+o.Host+" not found in any suffix")
	return false, nil
}

// followCNAME returns the alias's name where CanonicalizePermittedCNAMEs lets it (check_follow_cname, ssh.c).
func (p *parser) followCNAME(name, cname string) (result string, followed bool) {
	cname = lowerASCII(strings.TrimSuffix(cname, "."))
	if cname == "" || cname == name {
		return name, false
	}
	for _, rule := range p.o.CanonicalizePermittedCNAMEs {
		sources, targets, _ := strings.Cut(rule, ":")
		if matchList(name, sources, true) > 0 && matchList(cname, targets, true) > 0 {
			if p.o.LogLevel >= LogVerbose {
				p.log(0, "Canonicalized DNS aliased hostname \""+name+"\" => \""+cname+"\"")
			}
			return cname, true
		}
	}
	return name, false
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
