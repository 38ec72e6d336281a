package sshopt

import (
	"os"
	"strconv"
	"strings"
)

// settleHost takes Hostname into use, after the first pass over the files.
func (p *parser) settleHost() error {
	o := p.o
	o.Host = o.OriginalHost
	if o.Hostname != "" {
		host, err := p.expandHostname()
		if err != nil {
			return err
		}
		o.Host = host
	}
	if !p.isSet(kwCanonicalizeMaxDots) {
		o.CanonicalizeMaxDots = 1
	}
	if !p.isSet(kwCanonicalizeFallbackLocal) {
		o.CanonicalizeFallbackLocal = true
	}
	return p.canonicalize()
}

// settle makes the values final, once all of them are known. The order of its steps is that of
// OpenSSH's main (ssh.c), since it decides which of several errors is reported.
func (p *parser) settle() error {
	o := p.o
	if o.Port == 0 {
		o.Port = defaultPort
	}
	if err := p.settleUser(); err != nil {
		return err
	}
	command, err := p.jumpCommand()
	if err != nil {
		return err
	}
	if len(o.ProxyJump) > 0 {
		o.ProxyUseFdpass = false
		p.log(1, "Setting implicit ProxyCommand from ProxyJump: "+command)
	}
	o.ProxyCommand = command
	o.HostKeyAlias = lowerASCII(o.HostKeyAlias)
	o.Hostname = o.Host
	if err := p.checkConflicts(); err != nil {
		return err
	}
	p.conflictsChecked = true
	p.settleUpdateHostKeys()
	p.settleTTY()
	t := p.tokens()
	if err := p.settleSession(t); err != nil {
		return err
	}
	if err := p.settleShown(t); err != nil {
		return err
	}
	if o.Action == ActionDump {
		return nil
	}
	return p.settleRest(t)
}

// settleUser expands User where it comes from a file (10.x), and names the local user otherwise.
func (p *parser) settleUser() error {
	o := p.o
	if o.User == "" {
		o.User = p.env.LocalUser
		return nil
	}
	if p.userTyped {
		return nil
	}
	user, err := p.expand(o.User, expandUser, p.tokens())
	if err != nil {
		return err
	}
	if user != o.User && !validUser(user) {
		return fatal(textBadUser)
	}
	o.User = user
	return nil
}

// tokens gathers what the %-tokens stand for.
func (p *parser) tokens() *tokens {
	o := p.o
	port := o.Port
	if port == 0 {
		port = defaultPort
	}
	t := tokens{host: o.Host, original: o.OriginalHost, port: strconv.Itoa(port), user: o.User,
		alias: o.HostKeyAlias, jump: p.lastJump(), env: &p.env}
	if t.alias == "" {
		t.alias = o.OriginalHost
	}
	return &t
}

// checkConflicts refuses what doesn't go together.
func (p *parser) checkConflicts() error {
	o := p.o
	switch {
	case o.ProxyCommand == "-" && o.ProxyUseFdpass:
		return fatal(textFdpassStdio)
	case o.ConnectionAttempts <= 0:
		return fatal(textBadAttempts)
	case o.Command != "" && o.RemoteCommand != "":
		return fatal(textCommandTwice)
	case o.ForkAfterAuthentication && o.Command == "" && o.RemoteCommand == "" && o.SessionType != SessionNone:
		return fatal(textNothingToFork)
	}
	return nil
}

// settleUpdateHostKeys gives up asking where nobody could answer.
func (p *parser) settleUpdateHostKeys() {
	o := p.o
	if o.UpdateHostKeys != "ask" {
		return
	}
	switch {
	case o.ControlPersist.Set && o.ControlPath != "":
		p.log(1, "UpdateHostKeys=ask is incompatible with ControlPersist; disabling")
	case o.Command != "", o.RemoteCommand != "", o.RequestTTY == RequestTTYNo:
		p.log(1, "UpdateHostKeys=ask is incompatible with remote command execution; disabling")
	case o.LogLevel < LogInfo:
	default:
		return
	}
	o.UpdateHostKeys = "no"
}

// settleSession expands RemoteCommand, which becomes the command.
func (p *parser) settleSession(t *tokens) error {
	o := p.o
	if o.RemoteCommand != "" {
		p.log(3, "expanding RemoteCommand: "+o.RemoteCommand)
		command, err := p.expand(o.RemoteCommand, expandCommand, t)
		if err != nil {
			return err
		}
		p.log(3, "expanded RemoteCommand: "+command)
		o.RemoteCommand, o.Command = command, command
	}
	o.HasCommand = o.Command != ""
	return nil
}

// settleShown expands what -G shows expanded.
func (p *parser) settleShown(t *tokens) error {
	o := p.o
	paths := []*string{&o.ControlPath, &o.IdentityAgent, &o.ForwardAgentSocket}
	if err := dropNone(&o.GlobalKnownHostsFile, "GlobalKnownHostsFiles"); err != nil {
		return err
	}
	if err := dropNone(&o.UserKnownHostsFile, "UserKnownHostsFiles"); err != nil {
		return err
	}
	for _, path := range paths {
		expanded, err := p.expandPath(*path, t)
		if err != nil {
			return err
		}
		*path = expanded
	}
	if err := p.checkAgentSocket(); err != nil {
		return err
	}
	for i, path := range o.UserKnownHostsFile {
		expanded, err := p.expandPath(path, t)
		if err != nil {
			return err
		}
		p.sayExpanded("UserKnownHostsFile", path, expanded)
		o.UserKnownHostsFile[i] = expanded
	}
	for _, f := range [...]struct {
		name string
		list []Forward
	}{{"LocalForward", o.LocalForward}, {"DynamicForward", o.DynamicForward}, {"RemoteForward", o.RemoteForward}} {
		if err := p.settleForwards(f.name, f.list, t); err != nil {
			return err
		}
	}
	return nil
}

// settleForwards expands the paths of sockets.
func (p *parser) settleForwards(name string, list []Forward, t *tokens) error {
	for i := range list {
		for _, side := range [...]struct {
			name string
			path *string
		}{{" listen path", &list[i].BindPath}, {" connect path", &list[i].Path}} {
			expanded, err := p.expand(*side.path, expandCommand, t)
			if err != nil {
				return err
			}
			p.sayExpanded(name+side.name, *side.path, expanded)
			*side.path = expanded
		}
	}
	return nil
}

func (p *parser) sayExpanded(what, from, to string) {
	if from != to {
		p.log(3, "expanded "+what+" '"+from+"' -> '"+to+"'")
	}
}

// dropNone empties a list whose only word is none.
func dropNone(list *[]string, name string) error {
	if len(*list) == 0 || !isNone((*list)[0]) {
		return nil
	}
	if len(*list) > 1 {
		return fatal("Invalid " + name + ": \"none\" appears with other entries")
	}
	*list = nil
	return nil
}

// checkAgentSocket says when the socket to forward isn't there. The names of variables are looked
// at as if they were files, as in OpenSSH.
func (p *parser) checkAgentSocket() error {
	o := p.o
	if o.ForwardAgentSocket == "" {
		return nil
	}
	_, err := os.Stat(o.ForwardAgentSocket)
	if err == nil {
		return nil
	}
	text := "Cannot forward agent socket path \"" + o.ForwardAgentSocket + "\": " + reason(err)
	if o.ExitOnForwardFailure {
		return fatal(text)
	}
	p.log(-1, text)
	return nil
}

// settleRest expands what OpenSSH expands only when it comes to use it.
func (p *parser) settleRest(t *tokens) error {
	o := p.o
	if err := p.settleFiles(t); err != nil {
		return err
	}
	for _, e := range [...]struct {
		to   *string
		what expansion
	}{
		{&o.ProxyCommand, expandProxy},
		{&o.VersionAddendum, expandAll},
		{&o.SSMTarget, expandAll}, {&o.SSMRegion, expandAll}, {&o.SSMProfile, expandAll},
		{&o.SSMDocument, expandAll}, {&o.SSMEndpoint, expandAll},
	} {
		expanded, err := p.expand(*e.to, e.what, t)
		if err != nil {
			return err
		}
		*e.to = expanded
	}
	for i, pair := range o.SetEnv {
		name, value, _ := strings.Cut(pair, "=")
		value, err := p.expand(value, expandAll, t)
		if err != nil {
			return err
		}
		o.SetEnv[i] = name + "=" + value
	}
	if err := p.settleKnownHostsCommand(t); err != nil {
		return err
	}
	if o.PermitLocalCommand {
		expanded, err := p.expand(o.LocalCommand, expandLocal, t)
		if err != nil {
			return err
		}
		o.LocalCommand = expanded
	}
	p.settleAgent()
	p.settleNode()
	return nil
}

// settleKnownHostsCommand splits the command and then expands its words, but for the first (sshconnect.c,
// load_hostkeys_command).
func (p *parser) settleKnownHostsCommand(t *tokens) error {
	o := p.o
	if o.KnownHostsCommand == "" {
		return nil
	}
	words, ok := splitWords(o.KnownHostsCommand, nil, false)
	if !ok {
		p.log(-1, "KnownHostsCommand \""+o.KnownHostsCommand+"\" contains invalid quotes")
		return nil
	}
	for i := 1; i < len(words); i++ {
		word, err := p.expand(words[i], expandKnown, t)
		if err != nil {
			return err
		}
		words[i] = word
	}
	o.KnownHostsCommandArgs = words
	return nil
}

// settleFiles expands the names of key files and drops those that are none.
func (p *parser) settleFiles(t *tokens) error {
	o := p.o
	ids := make([]Identity, 0, len(o.IdentityFile))
	for _, id := range o.IdentityFile {
		if isNone(id.Path) {
			continue
		}
		path, err := p.expandPath(id.Path, t)
		if err != nil {
			return err
		}
		ids = append(ids, Identity{Path: path, Explicit: id.Explicit})
	}
	o.IdentityFile = ids
	for _, list := range [...][]string{o.CertificateFile, o.RevokedHostKeys, o.GlobalKnownHostsFile} {
		for i := range list {
			path, err := p.expandPath(list[i], t)
			if err != nil {
				return err
			}
			list[i] = path
		}
	}
	return nil
}

// settleAgent finds the socket of the agent, of the one to forward, and the library for security keys.
func (p *parser) settleAgent() {
	o := p.o
	variable := "SSH_AUTH_SOCK"
	switch {
	case o.IdentityAgent == "none":
		variable = ""
	case isLegacyVariable(o.IdentityAgent):
		variable = o.IdentityAgent[1:]
	case o.IdentityAgent != "" && o.IdentityAgent != variable:
		o.AgentSocket, variable = o.IdentityAgent, ""
	}
	if variable != "" {
		o.AgentSocket, _ = p.env.Getenv(variable)
	}
	if isLegacyVariable(o.SecurityKeyProvider) {
		o.SecurityKeyProvider, _ = p.env.Getenv(o.SecurityKeyProvider[1:])
	}
	if isLegacyVariable(o.ForwardAgentSocket) {
		socket, ok := p.env.Getenv(o.ForwardAgentSocket[1:])
		o.ForwardAgentSocket = socket
		o.ForwardAgent = o.ForwardAgent && ok
	}
}

// check refuses what this program can't do and must not pass over in silence, when it is asked to
// do it; the rest is only warned of.
func (p *parser) check() error {
	o := p.o
	switch o.Action {
	case ActionMuxCommand:
		if o.ControlPath == "" && !(o.SSMMultiplex && p.isTarget()) {
			return fatal(textNoControlPath)
		}
		return nil
	case ActionRun:
	default:
		return nil
	}
	switch {
	case o.Tunnel != "no":
		return fatal("Tunnel: tun devices are not supported; set it to no")
	case o.HostbasedAuthentication:
		return fatal("HostbasedAuthentication: host-based authentication is not supported; set it to no")
	}
	if o.VerifyHostKeyDNS != "no" {
		p.log(0, "VerifyHostKeyDNS: not supported; host keys are checked as if it were no")
	}
	if o.PKCS11Provider != "" {
		p.warn("no support for PKCS#11.") // as of an OpenSSH without it; keys in an agent are none of this
	}
	p.sayNoX11()
	return nil
}

// sayNoX11 says that X11 is not forwarded, as OpenSSH does of a server that refuses it (ssh.c,
// ssh_session2_setup; clientloop.c, client_expect_confirm). The session goes on without.
func (p *parser) sayNoX11() {
	o := p.o
	if !o.ForwardX11 || o.SessionType == SessionNone {
		return
	}
	if display, _ := p.env.Getenv("DISPLAY"); display == "" {
		p.log(1, "X11 forwarding requested but DISPLAY not set")
		return
	}
	p.log(0, "X11 forwarding request failed on channel 0")
	p.log(1, "ForwardX11: this program has no X11 forwarding")
}

// settleTTY decides about the pty (ssh.c, main).
func (p *parser) settleTTY() {
	o := p.o
	o.TTY = o.RequestTTY == RequestTTYYes || o.RequestTTY == RequestTTYForce ||
		o.Command == "" && o.RemoteCommand == "" && o.RequestTTY != RequestTTYNo
	if o.MuxCommand != "" && o.MuxCommand != MuxProxy || o.SessionType == SessionNone {
		o.TTY = false
	}
	if o.TTY && (!p.env.StdinIsTerminal || o.StdinNull) && o.RequestTTY != RequestTTYForce {
		o.TTY = false
		p.log(0, textNoTTY)
	}
}

// isTarget reports whether the host is reached by SSM.
func (p *parser) isTarget() bool {
	name := p.o.NodeName()
	return name != "" && (p.o.SSMTarget != "" || p.env.IsTarget != nil && p.env.IsTarget(name))
}
