package sshopt

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// matchPattern reports whether s matches a pattern of ? and * (match_pattern, match.c). It takes
// time in proportion to the product of both lengths at worst: a configuration can't make it hang.
func matchPattern(s, pattern string) bool {
	star, retry := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '*':
			star, retry = j, i
			j++
		case j < len(pattern) && (pattern[j] == '?' || pattern[j] == s[i]):
			i++
			j++
		case star >= 0:
			retry++
			i, j = retry, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "*") == ""
}

// matchList matches s against patterns separated by commas: 1 when one matches, -1 when a negated
// one does, 0 otherwise. With fold, the patterns count in lower case.
func matchList(s, patterns string, fold bool) int {
	if fold {
		patterns = lowerASCII(patterns)
	}
	found := 0
	for patterns != "" {
		var pattern string
		pattern, patterns, _ = strings.Cut(patterns, ",")
		pattern, negated := strings.CutPrefix(pattern, "!")
		if !matchPattern(s, pattern) {
			continue
		}
		if negated {
			return -1
		}
		found = 1
	}
	return found
}

// matchHostname is matchList for host names, in any case.
func matchHostname(host, patterns string) bool {
	return matchList(lowerASCII(host), patterns, true) > 0
}

// matchedHost is the name that Host and Include's tokens see: as typed, and on the final pass what
// Hostname and canonicalization made of it.
func (p *parser) matchedHost() string {
	if p.finalPass {
		return p.o.Host
	}
	return p.o.OriginalHost
}

// match begins a block that applies when all its criteria hold.
func (l *line) match() error {
	if l.p.commandLine {
		l.p.log(-1, "Host directive not supported as a command-line option") // its words
		return errBadLine
	}
	result, err := l.matchAll()
	if err == errBadLine {
		return l.bad("Bad Match condition")
	}
	if err != nil {
		return err
	}
	*l.active = result && !l.scope.never
	return nil
}

// matchAll weighs the criteria one by one. All are checked for their syntax, even after one that
// doesn't hold; only exec isn't run then.
func (l *line) matchAll() (result bool, err error) {
	host, err := l.p.hostSoFar()
	if err != nil {
		return false, err
	}
	l.p.log(2, "checking match for '"+l.rest+"' host "+host+" originally "+l.p.o.OriginalHost)
	defer func() {
		switch {
		case err != nil:
		case result:
			l.p.log(2, "match found")
		default:
			l.p.log(2, "match not found")
		}
	}()
	result = true
	count := 0
	for len(l.args) > 0 {
		word := l.next()
		if strings.HasPrefix(word, "#") {
			l.args = nil
			break
		}
		name, negated := strings.CutPrefix(word, "!")
		name, arg, hasArg := strings.Cut(name, "=")
		name = lowerASCII(name)
		if name == "all" {
			if count > 1 || hasArg || len(l.args) > 0 {
				return false, l.bad("'" + word + "' cannot be combined with other Match attributes")
			}
			return result && !negated, nil
		}
		count++
		if name == "canonical" || name == "final" {
			l.p.wantFinal = l.p.wantFinal || name == "final" && !l.p.finalPass
			held := l.p.finalPass != negated
			l.sayMatched(held, word, "")
			result = result && held
			continue
		}
		if !hasArg {
			hasArg = len(l.args) > 0
			arg = l.next()
		}
		held, value, err := l.criterion(name, arg, hasArg, result)
		if err != nil {
			return false, err
		}
		if name == "exec" && !result {
			l.p.log(3, l.where()+": skipped exec \""+value+"\"")
			continue
		}
		held = held != negated
		l.sayMatched(held, word, " \""+value+"\"")
		result = result && held
	}
	if count == 0 {
		l.p.log(-1, "One or more attributes required for Match")
		return false, errBadLine
	}
	return result, nil
}

// sayMatched says of one criterion whether it holds.
func (l *line) sayMatched(held bool, word, value string) {
	not := ""
	if !held {
		not = "not "
	}
	space := ""
	if value != "" {
		space = " "
	}
	l.p.log(3, l.where()+": "+not+"matched '"+word+value+"'"+space)
}

// criterion weighs one criterion, and returns what it is weighed against. sofar says whether those before it held.
func (l *line) criterion(name, arg string, hasArg, sofar bool) (held bool, value string, err error) {
	p := l.p
	mayBeEmpty := hasArg && (name == "tagged" || name == "command")
	if arg == "" && !mayBeEmpty || strings.HasPrefix(arg, "#") {
		p.log(-1, "Missing Match criteria for "+name)
		return false, "", errBadLine
	}
	switch name {
	case "host":
		value, err = p.hostSoFar()
		return err == nil && matchHostname(value, arg), value, err
	case "originalhost":
		value = p.o.OriginalHost
		return matchHostname(value, arg), value, nil
	case "user":
		value = p.userSoFar()
	case "localuser":
		value = p.env.LocalUser
	case "version":
		value = p.env.Version
	case "sessiontype":
		value = p.sessionSoFar()
	case "tagged":
		return matchOrEmpty(p.o.Tag, arg), p.o.Tag, nil
	case "command":
		return matchOrEmpty(p.o.Command, arg), p.o.Command, nil
	case "localnetwork":
		held, err = l.localNetwork(arg)
		return held, arg, err
	case "exec":
		return l.matchExec(arg, sofar && !l.scope.never)
	default:
		p.log(-1, "Unsupported Match attribute "+name)
		return false, "", errBadLine
	}
	return matchList(value, arg, false) > 0, value, nil
}

// matchOrEmpty is matchList where nothing is matched by the empty pattern alone.
func matchOrEmpty(s, patterns string) bool {
	if s == "" {
		return patterns == ""
	}
	return matchList(s, patterns, false) > 0
}

// hostSoFar is the host as the lines read until now have it.
func (p *parser) hostSoFar() (string, error) {
	if p.finalPass {
		return p.o.Host, nil
	}
	if p.o.Hostname == "" {
		return p.o.OriginalHost, nil
	}
	return p.expandHostname()
}

func (p *parser) userSoFar() string {
	if p.o.User == "" {
		return p.env.LocalUser
	}
	return p.o.User
}

// sessionSoFar names what is going to be run, for Match sessiontype (10.x).
func (p *parser) sessionSoFar() string {
	switch {
	case p.o.SessionType == SessionSubsystem:
		return "subsystem"
	case p.o.SessionType == SessionNone:
		return "none"
	case p.o.Command != "":
		return "exec"
	}
	return "shell"
}

// matchExec runs a command, unless the outcome can't matter any more; its status 0 is a match.
func (l *line) matchExec(arg string, run bool) (held bool, command string, err error) {
	command, err = l.p.expandEarly(arg, false)
	if err != nil || !run {
		return false, command, err
	}
	l.p.log(1, "Executing command: '"+command+"'")
	status, err := l.p.env.Exec(command)
	var unusable *Error
	if errors.As(err, &unusable) {
		return false, command, unusable
	}
	if err != nil {
		l.p.log(-1, err.Error())
		return false, command, l.fatal("match exec '" + command + "' error")
	}
	l.p.log(3, "command returned status "+strconv.Itoa(status))
	return status == 0, command, nil
}

// runShell is Environment.Exec's default. A shell that can't be run is an *Error. The command sees nothing of our stdin and stdout.
func (p *parser) runShell(command string) (int, error) {
	shell, ok := p.env.Getenv("SHELL")
	if !ok {
		shell = "/bin/sh"
	}
	if info, err := os.Stat(shell); err != nil {
		return 0, fatal("Shell \"" + shell + "\" is not executable: " + reason(err))
	} else if info.Mode().Perm()&0o111 == 0 {
		return 0, fatal("Shell \"" + shell + "\" is not executable: Permission denied")
	}
	cmd := exec.Command(shell, "-c", command)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil && (cmd.ProcessState == nil || !cmd.ProcessState.Exited()) {
		return 0, errors.New("command '" + command + "' exited abnormally")
	}
	return cmd.ProcessState.ExitCode(), nil
}

// localNetwork reports whether an address of this machine lies in one of the networks (10.x).
func (l *line) localNetwork(list string) (bool, error) {
	var networks []netip.Prefix
	for entry := range strings.SplitSeq(list, ",") {
		network, err := parseNetwork(entry)
		if err != nil {
			l.p.log(-1, err.Error())
			return false, errBadLine
		}
		networks = append(networks, network)
	}
	addresses, err := l.p.env.Addresses()
	if err != nil {
		l.p.log(-1, "match localnetwork: getifaddrs failed: "+reason(err))
		return false, nil
	}
	for _, address := range addresses {
		for _, network := range networks {
			if network.Contains(address) {
				return true, nil
			}
		}
	}
	return false, nil
}

// parseNetwork reads an address with or without a mask's length (addr_pton_cidr, addr.c).
func parseNetwork(entry string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(entry); err == nil && address.Zone() == "" {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	network, err := netip.ParsePrefix(entry)
	if err != nil {
		return network, fatal("Invalid network entry \"" + entry + "\"")
	}
	if network != network.Masked() {
		return network, fatal("Inconsistent mask length for network \"" + entry + "\"")
	}
	return network, nil
}

// interfaceAddresses is Environment.Addresses' default.
func interfaceAddresses() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	addresses := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		if network, err := netip.ParsePrefix(a.String()); err == nil {
			addresses = append(addresses, network.Addr().Unmap())
		}
	}
	return addresses, nil
}
