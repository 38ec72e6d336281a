package sshopt

import (
	"os"
	"strconv"
	"strings"
)

func parseProxyCommand(l *line) error {
	l.args = nil
	if len(l.p.o.ProxyJump) == 0 && l.take() {
		l.p.o.ProxyCommand = strings.TrimLeft(l.rest, blanks+"=")
	}
	return nil
}

func parseProxyJump(l *line) error {
	l.args = nil
	spec := strings.TrimLeft(l.rest, blanks+"=")
	if !l.p.setJump(spec, *l.active) {
		return l.bad("Invalid ProxyJump \"" + spec + "\"")
	}
	return nil
}

// setJump reads a list of jump hosts. It takes effect unless one was given before, or a
// ProxyCommand was: of the two, the first one counts.
func (p *parser) setJump(spec string, active bool) bool {
	spec, _, _ = strings.Cut(spec, "#")
	if i := strings.IndexAny(spec, blanks); i > 0 {
		spec = spec[:i] // what follows a blank is dropped unseen, in 9.2
	}
	active = active && !p.jumpSet && !p.isSet(kwProxyCommand)
	if isNone(spec) {
		if active {
			p.jumpSet = true
			p.mark(kwProxyJump)
		}
		return true
	}
	var jumps []Jump
	for hop := range strings.SplitSeq(spec, ",") {
		user, host, port, err := parseSSHURI(hop)
		if err == errBadURI {
			return false
		}
		if err == errNotURI {
			var ok bool
			if user, host, port, ok = parseUserHostPort(hop); !ok {
				return false
			}
		}
		if !validHost(host) || user != "" && !validUser(user) {
			return false // both end up in a shell's command
		}
		jumps = append(jumps, Jump{User: user, Host: host, Port: port})
	}
	if active {
		p.jumpSet = true
		p.mark(kwProxyJump)
		p.mark(kwProxyCommand)
		p.o.ProxyJump = jumps
	}
	return true
}

// lastJump is the host that %j stands for: the one next to the destination.
func (p *parser) lastJump() string {
	if n := len(p.o.ProxyJump); n > 0 {
		return p.o.ProxyJump[n-1].Host
	}
	return ""
}

// String returns the jump as ProxyJump takes it.
func (j Jump) String() string {
	s := j.Host
	if strings.Contains(s, ":") || strings.Trim(s, "0123456789.") == "" {
		s = "[" + s + "]"
	}
	if j.User != "" {
		s = j.User + "@" + s
	}
	if j.Port != 0 {
		s += ":" + strconv.Itoa(j.Port)
	}
	return s
}

func joinJumps(jumps []Jump) string {
	words := make([]string, len(jumps))
	for i, j := range jumps {
		words[i] = j.String()
	}
	return strings.Join(words, ",")
}

// jumpCommand is the ProxyCommand that ProxyJump stands for: this program, called for the last
// hop, by way of those before it, to connect its standard streams to the destination.
func (p *parser) jumpCommand() (string, error) {
	o := p.o
	if len(o.ProxyJump) == 0 {
		return o.ProxyCommand, nil
	}
	last := o.ProxyJump[len(o.ProxyJump)-1]
	user, port := last.User, last.Port
	if user == "" {
		user = o.User
	}
	if port == 0 {
		port = defaultPort
	}
	if last.Host == o.Host && port == o.Port && user == o.User {
		return "", fatal("jumphost loop via " + last.Host)
	}
	program := p.env.Args0
	if program == "" || strings.Contains(program, "/") && !executable(program) {
		program = "ssh"
	}
	var b strings.Builder
	b.WriteString(program)
	if last.User != "" {
		b.WriteString(" -l " + last.User)
	}
	if last.Port != 0 {
		b.WriteString(" -p " + strconv.Itoa(last.Port))
	}
	if before := o.ProxyJump[:len(o.ProxyJump)-1]; len(before) > 0 {
		b.WriteString(" -J " + joinJumps(before))
	}
	if o.ConfigFile != "" {
		b.WriteString(" -F " + o.ConfigFile)
	}
	if o.Verbose > 0 {
		b.WriteString(" -" + "vvv"[:o.Verbose])
	}
	b.WriteString(" -W '[%h]:%p' " + last.Host)
	return b.String(), nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o111 != 0
}
