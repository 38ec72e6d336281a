package sshopt

import "strings"

// limits on the parts of a forward (parse_forward, readconf.c).
const (
	maxHostBytes = 1025 // NI_MAXHOST
	maxSunPath   = 108  // sizeof(sockaddr_un.sun_path) on Linux, the larger one
)

// maxConfigForward is the buffer in which OpenSSH joins a config line's two arguments.
const maxConfigForward = 255

// ParseForward reads what the user has typed on ssh's own command line (~C), after -L and the others: as
// those of the program's, or with dynamic only a place to listen on.
func ParseForward(spec string, env Environment, dynamic, remote bool) (Forward, bool) {
	p := &parser{o: &Options{}, env: env}
	p.fillEnvironment()
	return p.parseForward(spec, dynamic, remote)
}

// parseForward reads a forward: [bind:]port:host:port, where either side may be the path of a
// unix socket; with dynamic, [bind:]port or a path alone. Fields may stand in square brackets,
// and a backslash takes the meaning from a colon. Variables are expanded first, since their value
// decides what is a path.
func (p *parser) parseForward(spec string, dynamic, remote bool) (Forward, bool) {
	spec, err := p.expand(spec, expandVars, nil)
	if err != nil {
		p.logCause(err)
		return Forward{}, false
	}
	fields, ok := splitForward(strings.TrimLeft(spec, " \t\n\v\f\r"))
	if !ok {
		return Forward{}, false
	}
	f, ok := assemble(fields, dynamic)
	if !ok || f.BindPath == "" && f.BindPort == 0 && !remote {
		return Forward{}, false
	}
	fits := len(f.BindAddr) < maxHostBytes && len(f.Host) < maxHostBytes &&
		len(f.BindPath) < maxSunPath && len(f.Path) < maxSunPath
	return f, fits
}

// forwardField is one of the parts between colons.
type forwardField struct {
	text string
	path bool
}

// splitForward returns up to four fields; it reports false when there are more, none, or a bracket
// isn't closed.
func splitForward(s string) ([]forwardField, bool) {
	var fields []forwardField
	for s != "" {
		if len(fields) == 4 {
			return nil, false
		}
		field, rest, ok := cutForwardField(s)
		if !ok {
			return nil, false
		}
		fields = append(fields, field)
		s = rest
	}
	return fields, len(fields) > 0
}

func cutForwardField(s string) (f forwardField, rest string, ok bool) {
	if s[0] == '[' {
		text, rest, closed := strings.Cut(s[1:], "]")
		if !closed || rest != "" && rest[0] != ':' {
			return f, "", false
		}
		return forwardField{text, strings.Contains(text, "/")}, strings.TrimPrefix(rest, ":"), true
	}
	var b []byte
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return f, "", false
			}
		case '/':
			f.path = true
		case ':':
			f.text = string(b)
			return f, s[i+1:], true
		}
		b = append(b, s[i])
	}
	f.text = string(b)
	return f, "", true
}

// assemble makes a forward of its fields. The listening side takes the first one or two.
func assemble(fields []forwardField, dynamic bool) (f Forward, ok bool) {
	bind, target := splitSides(fields)
	if dynamic != (len(target) == 0) {
		return f, false
	}
	switch {
	case bind[0].path && len(bind) == 1:
		f.BindPath = bind[0].text
	case len(bind) == 2:
		f.BindAddr = bind[0].text
		if f.BindAddr == "" {
			f.BindAddr = "*"
		}
		fallthrough
	default:
		if f.BindPort, ok = parsePort(bind[len(bind)-1].text); !ok {
			return f, false
		}
	}
	switch len(target) {
	case 0:
		return f, true
	case 1:
		f.Path = target[0].text
		return f, true
	}
	f.Host = target[0].text
	f.HostPort, ok = parsePort(target[1].text)
	return f, ok && f.HostPort > 0
}

// splitSides parts the fields by their number and by which of them are paths.
func splitSides(fields []forwardField) (bind, target []forwardField) {
	n := len(fields)
	switch {
	case n == 1 || n == 2 && !fields[1].path:
		return fields, nil
	case n == 2, n == 3 && fields[0].path, n == 3 && !fields[2].path:
		return fields[:1], fields[1:]
	}
	return fields[:2], fields[2:] // bind:port:path, or all four
}

// addForward appends f unless it is there already.
func (p *parser) addForward(list *[]Forward, f Forward) {
	for _, have := range *list {
		if have == f {
			return
		}
	}
	*list = append(*list, f)
}

func parseLocalForward(l *line) error   { return l.forward(&l.p.o.LocalForward, false, false) }
func parseDynamicForward(l *line) error { return l.forward(&l.p.o.DynamicForward, true, false) }
func parseRemoteForward(l *line) error  { return l.forward(&l.p.o.RemoteForward, false, true) }

// forward reads a forward whose sides are two arguments. A remote one may have the first alone,
// which makes it a SOCKS listener.
func (l *line) forward(list *[]Forward, dynamic, remote bool) error {
	spec, err := l.needed()
	if err != nil {
		return err
	}
	if !dynamic {
		switch target := l.next(); {
		case target != "":
			spec += ":" + target
		case remote:
			dynamic = true
		default:
			return l.bad("Missing target argument.")
		}
	}
	f, ok := l.p.parseForward(spec[:min(len(spec), maxConfigForward)], dynamic, remote)
	if !ok {
		return l.bad("Bad forwarding specification.")
	}
	if *l.active {
		l.p.mark(l.kw.id)
		l.p.addForward(list, f)
	}
	return nil
}
