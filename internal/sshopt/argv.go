package sshopt

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// errDone ends the parsing of a command line that asks for -V or -Q: OpenSSH acts on these on the
// spot, whatever follows them.
var errDone = errors.New("nothing more to parse")

// flag is one letter of the command line.
type flag struct {
	takesArg bool
	apply    func(p *parser, arg string) error
}

// flags is OpenSSH 9.2's getopt string, with the -P tag of 9.4 and later (ssh.c, main). Where a
// flag stands for a keyword, it assigns at once, and so goes before what an earlier -o said; -l
// and -p don't.
var flags = [128]flag{
	'1': {false, func(p *parser, _ string) error { return fatal(textProtocol1) }},
	'2': {false, func(*parser, string) error { return nil }},
	'4': {false, func(p *parser, _ string) error { p.mark(kwAddressFamily); p.o.AddressFamily = "inet"; return nil }},
	'6': {false, func(p *parser, _ string) error { p.mark(kwAddressFamily); p.o.AddressFamily = "inet6"; return nil }},
	'A': {false, func(p *parser, _ string) error { p.mark(kwForwardAgent); p.o.ForwardAgent = true; return nil }},
	'B': {true, func(p *parser, arg string) error { p.mark(kwBindInterface); p.o.BindInterface = arg; return nil }},
	'C': {false, func(p *parser, _ string) error { p.mark(kwCompression); p.o.Compression = true; return nil }},
	'D': {true, flagDynamic},
	'E': {true, func(p *parser, arg string) error { p.logFile = arg; return nil }},
	'F': {true, func(p *parser, arg string) error { p.o.ConfigFile = arg; return nil }},
	'G': {false, func(p *parser, _ string) error { p.o.Action = ActionDump; return nil }},
	'I': {true, func(p *parser, arg string) error { p.mark(kwPKCS11Provider); p.o.PKCS11Provider = arg; return nil }},
	'J': {true, flagJump},
	'K': {false, func(p *parser, _ string) error { p.setGSSAPI(true); return nil }},
	'L': {true, flagLocal},
	'M': {false, flagMaster},
	'N': {false, flagNoSession},
	'O': {true, flagMuxCommand},
	'P': {true, func(p *parser, arg string) error { p.mark(kwTag); p.o.Tag = arg; return nil }},
	'Q': {true, flagQuery},
	'R': {true, flagRemote},
	'S': {true, func(p *parser, arg string) error { p.mark(kwControlPath); p.o.ControlPath = arg; return nil }},
	'T': {false, func(p *parser, _ string) error { p.setTTY(RequestTTYNo); return nil }},
	'V': {false, func(p *parser, _ string) error { p.o.Action = ActionVersion; return errDone }},
	'W': {true, flagStdioForward},
	'X': {false, func(p *parser, _ string) error { p.setX11(true, false); return nil }},
	'Y': {false, func(p *parser, _ string) error { p.setX11(true, true); return nil }},
	'a': {false, func(p *parser, _ string) error { p.mark(kwForwardAgent); p.o.ForwardAgent = false; return nil }},
	'b': {true, func(p *parser, arg string) error { p.mark(kwBindAddress); p.o.BindAddress = arg; return nil }},
	'c': {true, flagCiphers},
	'e': {true, flagEscape},
	'f': {false, flagFork},
	'g': {false, func(p *parser, _ string) error { p.mark(kwGatewayPorts); p.o.GatewayPorts = true; return nil }},
	'i': {true, flagIdentity},
	'k': {false, func(p *parser, _ string) error { p.setGSSAPI(false); return nil }},
	'l': {true, flagLogin},
	'm': {true, flagMACs},
	'n': {false, func(p *parser, _ string) error { p.mark(kwStdinNull); p.o.StdinNull = true; return nil }},
	'o': {true, func(p *parser, arg string) error { return p.commandLineOption(arg) }},
	'p': {true, flagPort},
	'q': {false, func(p *parser, _ string) error { p.mark(kwLogLevel); p.o.LogLevel = LogQuiet; return nil }},
	's': {false, flagSubsystem},
	't': {false, flagTTY},
	'v': {false, flagVerbose},
	'w': {true, flagTunnel},
	'x': {false, func(p *parser, _ string) error { p.setX11(false, false); return nil }},
	'y': {false, func(p *parser, _ string) error { p.o.Syslog = true; return nil }},
}

// arguments takes in the whole command line as BSD's getopt and OpenSSH's loop around it do:
// flags, the destination, flags again unless "--" ended them, the command.
func (p *parser) arguments(argv []string) error {
	n, err := p.parseFlags(argv)
	if err != nil {
		return err
	}
	if n == len(argv) {
		return usage()
	}
	// OpenSSH looks at the word before the destination, even where that is a flag's argument.
	ended := n > 0 && argv[n-1] == "--"
	if err := p.destination(argv[n]); err != nil {
		return err
	}
	argv = argv[n+1:]
	if !ended {
		if n, err = p.parseFlags(argv); err != nil {
			return err
		}
		argv = argv[n:]
	}
	return p.command(argv)
}

// parseFlags applies the flags at the head of argv and returns how many words they take.
func (p *parser) parseFlags(argv []string) (int, error) {
	for i := 0; i < len(argv); i++ {
		word := argv[i]
		if word == "--" {
			return i + 1, nil
		}
		if len(word) < 2 || word[0] != '-' {
			return i, nil
		}
		took, err := p.parseFlagWord(word, argv[i+1:])
		if err != nil {
			return i, err
		}
		i += took
	}
	return len(argv), nil
}

// parseFlagWord applies one word of joined flags. It returns 1 when the last of them took its
// argument from the next word.
func (p *parser) parseFlagWord(word string, next []string) (int, error) {
	for j := 1; j < len(word); j++ {
		c := word[j]
		if c >= 128 || flags[c].apply == nil {
			p.log(-1, "unknown option -- "+string([]byte{c}))
			return 0, usage()
		}
		if !flags[c].takesArg {
			if err := flags[c].apply(p, ""); err != nil {
				return 0, err
			}
			continue
		}
		if j+1 < len(word) {
			return 0, flags[c].apply(p, word[j+1:])
		}
		if len(next) == 0 {
			p.log(-1, "option requires an argument -- "+string([]byte{c}))
			return 0, usage()
		}
		return 1, flags[c].apply(p, next[0])
	}
	return 0, nil
}

// destination takes in the host with what may stand around it.
func (p *parser) destination(word string) error {
	p.o.Destination = word
	user, host, port, err := parseSSHURI(word)
	switch {
	case errors.Is(err, errNotURI):
		host = word
		if i := strings.LastIndexByte(word, '@'); i >= 0 {
			if i == 0 {
				return usage()
			}
			user, host = word[:i], word[i+1:]
		}
	case err != nil:
		return usage()
	}
	if user != "" {
		p.setUser(user)
	}
	if port != 0 && p.mark(kwPort) {
		p.o.Port = port
	}
	p.o.OriginalHost = host
	return nil
}

// command joins the words of the command and holds the checks that OpenSSH makes before it reads
// any file.
func (p *parser) command(words []string) error {
	if p.userTyped = p.isSet(kwUser); p.userTyped && !validUser(p.o.User) {
		return fatal(textBadUser)
	}
	if !validHost(p.o.OriginalHost) {
		return fatal(textBadHost)
	}
	if len(words) == 0 && p.o.SessionType == SessionSubsystem {
		return plain(textNoSubsystem + "\n" + textUsage)
	}
	p.o.Command = strings.Join(words, " ")
	if p.o.Syslog && p.logFile != "" {
		return fatal(textSyslogAndFile)
	}
	return nil
}

// validHost refuses names that could do harm where they are pasted into a shell command
// (ssh_valid_hostname, readconf.c).
func validHost(s string) bool {
	if strings.HasPrefix(s, "-") {
		return false
	}
	for i := range len(s) {
		if isSpace(s[i]) || isControl(s[i]) || strings.IndexByte("'`\"$\\;&<>|(){},", s[i]) >= 0 {
			return false
		}
	}
	return true
}

// validUser is validHost for user names from the command line (ssh_valid_ruser, readconf.c), with
// the ${VAR} that Debian's 9.2 refuses as well: its braces do.
func validUser(s string) bool {
	if strings.HasPrefix(s, "-") || strings.HasSuffix(s, "\\") {
		return false
	}
	for i := range len(s) {
		if isControl(s[i]) || strings.IndexByte("'`\";&<>|(){}", s[i]) >= 0 {
			return false
		}
		if isSpace(s[i]) && i+1 < len(s) && s[i+1] == '-' {
			return false
		}
	}
	return true
}

func isSpace(c byte) bool   { return c == ' ' || c >= '\t' && c <= '\r' }
func isControl(c byte) bool { return c < ' ' || c == 0x7f }

func (p *parser) setUser(user string) {
	if p.mark(kwUser) {
		p.o.User = user
	}
}

func (p *parser) setTTY(v RequestTTY) {
	p.mark(kwRequestTTY)
	p.o.RequestTTY = v
}

func (p *parser) setX11(on, trusted bool) {
	p.mark(kwForwardX11)
	p.o.ForwardX11 = on
	if trusted {
		p.mark(kwForwardX11Trusted)
		p.o.ForwardX11Trusted = true
	}
}

func (p *parser) setGSSAPI(on bool) {
	p.mark(kwGSSAPIDelegateCredentials)
	p.o.GSSAPIDelegateCredentials = on
	if on {
		p.mark(kwGSSAPIAuthentication)
		p.o.GSSAPIAuthentication = true
	}
}

func flagLogin(p *parser, arg string) error {
	p.setUser(arg)
	return nil
}

func flagPort(p *parser, arg string) error {
	if p.isSet(kwPort) {
		return nil
	}
	port, ok := parsePort(arg)
	if !ok || port == 0 {
		return plain("Bad port '" + arg + "'")
	}
	p.mark(kwPort)
	p.o.Port = port
	return nil
}

func flagMaster(p *parser, _ string) error {
	if !p.mark(kwControlMaster) && p.o.ControlMaster == ControlMasterYes {
		p.o.ControlMaster = ControlMasterAsk
		return nil
	}
	p.o.ControlMaster = ControlMasterYes
	return nil
}

func flagNoSession(p *parser, _ string) error {
	if p.isSet(kwSessionType) && p.o.SessionType != SessionNone {
		return fatal(textNoSessionAndType)
	}
	p.mark(kwSessionType)
	p.o.SessionType = SessionNone
	p.setTTY(RequestTTYNo)
	return nil
}

func flagSubsystem(p *parser, _ string) error {
	if p.isSet(kwSessionType) && p.o.SessionType != SessionSubsystem {
		return fatal(textSubsystemAndType)
	}
	p.mark(kwSessionType)
	p.o.SessionType = SessionSubsystem
	return nil
}

func flagTTY(p *parser, _ string) error {
	if p.isSet(kwRequestTTY) && p.o.RequestTTY == RequestTTYYes {
		p.o.RequestTTY = RequestTTYForce
		return nil
	}
	p.setTTY(RequestTTYYes)
	return nil
}

func flagFork(p *parser, _ string) error {
	p.mark(kwForkAfterAuthentication)
	p.mark(kwStdinNull)
	p.o.ForkAfterAuthentication = true
	p.o.StdinNull = true
	return nil
}

// flagVerbose counts: the first -v begins at debug1 even after -q, the others only go up from
// where the level is.
func flagVerbose(p *parser, _ string) error {
	p.mark(kwLogLevel)
	switch {
	case p.o.Verbose == 0:
		p.o.Verbose = 1
		p.o.LogLevel = LogDebug1
	case p.o.LogLevel < LogDebug3:
		p.o.Verbose = min(p.o.Verbose+1, 3)
		p.o.LogLevel++
	}
	return nil
}

func flagMuxCommand(p *parser, arg string) error {
	switch {
	case p.o.StdioForward != nil:
		return fatal(textMuxAndStdio)
	case p.o.MuxCommand != "":
		return fatal(textMuxTwice)
	}
	switch c := MuxCommand(arg); c {
	case MuxCheck, MuxForward, MuxCancel, MuxExit, MuxStop, MuxProxy, MuxConnInfo, MuxChannels:
		p.o.MuxCommand = c
		return nil
	}
	return fatal(textBadMuxCommand)
}

func flagStdioForward(p *parser, arg string) error {
	switch {
	case p.o.StdioForward != nil:
		return fatal(textStdioTwice)
	case p.o.MuxCommand != "":
		return fatal(textStdioAndMux)
	}
	f, ok := p.parseForward(arg, true, false)
	if !ok || f.BindPath == "" && f.BindAddr == "" {
		return plain("Bad stdio forwarding specification '" + arg + "'")
	}
	p.o.StdioForward = &StdioForward{Host: f.BindAddr, Port: f.BindPort, Path: f.BindPath}
	p.setTTY(RequestTTYNo)
	p.mark(kwSessionType)
	p.o.SessionType = SessionNone
	return nil
}

func flagLocal(p *parser, arg string) error {
	f, ok := p.parseForward(arg, false, false)
	if !ok {
		return plain("Bad local forwarding specification '" + arg + "'")
	}
	p.addForward(&p.o.LocalForward, f)
	return nil
}

func flagDynamic(p *parser, arg string) error {
	f, ok := p.parseForward(arg, true, false)
	if !ok {
		return plain("Bad dynamic forwarding specification '" + arg + "'")
	}
	p.addForward(&p.o.DynamicForward, f)
	return nil
}

func flagRemote(p *parser, arg string) error {
	f, ok := p.parseForward(arg, false, true)
	if !ok {
		f, ok = p.parseForward(arg, true, true)
	}
	if !ok {
		return plain("Bad remote forwarding specification '" + arg + "'")
	}
	p.addForward(&p.o.RemoteForward, f)
	return nil
}

func flagJump(p *parser, arg string) error {
	switch {
	case p.jumpSet:
		return fatal(textJumpTwice)
	case p.isSet(kwProxyCommand):
		return fatal(textJumpAndCommand)
	case !p.setJump(arg, true):
		return fatal(textBadJump)
	}
	return nil
}

func flagCiphers(p *parser, arg string) error {
	if !algCiphers.valid(strings.TrimPrefix(strings.TrimPrefix(arg, "+"), "^")) {
		return plain("Unknown cipher type '" + arg + "'")
	}
	p.mark(kwCiphers)
	p.ciphers = arg
	return nil
}

func flagMACs(p *parser, arg string) error {
	if !algMACs.valid(arg) {
		return plain("Unknown mac type '" + arg + "'")
	}
	p.mark(kwMACs)
	p.macs = arg
	return nil
}

func flagEscape(p *parser, arg string) error {
	c, ok := parseEscape(arg)
	if !ok {
		return plain("Bad escape character '" + arg + "'.")
	}
	p.mark(kwEscapeChar)
	p.o.EscapeChar = c
	return nil
}

func flagTunnel(p *parser, arg string) error {
	device, ok := parseTunnelDevice(arg)
	if !ok {
		return plain("Bad tun device '" + arg + "'")
	}
	if p.mark(kwTunnel) {
		p.o.Tunnel = "point-to-point"
	}
	p.mark(kwTunnelDevice)
	p.o.TunnelDevice = device
	return nil
}

// flagIdentity adds a key file. One that can't be looked at is left out with a warning: Ansible
// and others name keys that exist only for some hosts.
func flagIdentity(p *parser, arg string) error {
	path, err := p.expandTilde(arg)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		p.warn("Warning: Identity file " + path + " not accessible: " + reason(err) + ".")
		return nil
	}
	p.addIdentity(Identity{Path: path, Explicit: true})
	return nil
}

func flagQuery(p *parser, arg string) error {
	if _, ok := queryText(arg); !ok {
		return fatal("Unsupported query \"" + arg + "\"")
	}
	p.o.Action = ActionQuery
	p.o.Query = arg
	return errDone
}

// reason returns what strerror(3) says of err's errno. Go's text differs by its first letter.
func reason(err error) string {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	var errno syscall.Errno
	text := err.Error()
	if errors.As(err, &errno) && text != "" {
		text = strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}
