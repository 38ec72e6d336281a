package sshopt

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// This file holds the parse functions of keywords with one value. Each checks the syntax whether
// or not the line's block applies, as OpenSSH does; the texts are those of readconf.c, whose use
// of capitals and full stops follows no rule.

// limits of readconf.h and ssh.h.
const (
	maxHostsFiles       = 32
	maxCanonicalDomains = 32
	maxIdentityFiles    = 100
	maxCertificateFiles = 100
)

// needed takes an argument that must not be empty.
func (l *line) needed() (string, error) {
	arg := l.next()
	if arg == "" {
		return "", l.bad("Missing argument.")
	}
	return arg, nil
}

func parseString(l *line) error {
	arg, err := l.needed()
	if err == nil && l.take() {
		*l.kw.field(l.p).(*string) = arg
	}
	return err
}

// parseRest takes the rest of the line as it stands, with its quotes and '#'.
func parseRest(l *line) error {
	l.args = nil
	if l.take() {
		*l.kw.field(l.p).(*string) = strings.TrimLeft(l.rest, blanks+"=")
	}
	return nil
}

func parseState(l *line) error {
	arg := l.next()
	if arg == "" {
		l.p.log(-1, l.where()+": missing argument.")
	}
	value, ok := findState(l.kw.states, arg)
	if !ok {
		return l.bad("unsupported option \"" + arg + "\".")
	}
	if l.take() {
		storeState(l.kw.field(l.p), l.kw.states, value)
	}
	return nil
}

func parseInt(l *line) error {
	n, failure := atoi(l.next())
	if failure != "" {
		return l.bad("integer value " + failure + ".")
	}
	if l.take() {
		*l.kw.field(l.p).(*int) = n
	}
	return nil
}

// atoi reads a number from 0 to 2³¹-1 (atoi_err, misc.c).
func atoi(s string) (n int, failure string) {
	if s == "" {
		return 0, "missing"
	}
	digits := strings.TrimPrefix(strings.TrimPrefix(strings.TrimLeft(s, " \t\n\v\f\r"), "-"), "+")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, "invalid"
	}
	if strings.Contains(s, "-") && strings.Trim(digits, "0") != "" {
		return 0, "too small"
	}
	wide, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, "too large"
	}
	return int(wide), ""
}

// parseDuration takes a time. "none" leaves the keyword unset, open to a later line.
func parseDuration(l *line) error {
	span, none, err := l.span()
	if err == nil && !none && l.take() {
		*l.kw.field(l.p).(*time.Duration) = span
	}
	return err
}

func (l *line) span() (span time.Duration, none bool, err error) {
	arg := l.next()
	switch arg {
	case "":
		return 0, false, l.bad("missing time value.")
	case "none":
		return 0, true, nil
	}
	span, ok := parseTime(arg)
	if !ok {
		return 0, false, l.bad("invalid time value.")
	}
	return span, false, nil
}

func parseControlPersist(l *line) error {
	arg := l.next()
	var persist ControlPersist
	switch arg {
	case "":
		return l.bad("Missing ControlPersist argument.")
	case "no", "false":
	case "yes", "true":
		persist = ControlPersist{Set: true, Forever: true}
	default:
		span, ok := parseTime(arg)
		if !ok {
			return l.bad("Bad ControlPersist argument.")
		}
		persist = ControlPersist{Set: true, Forever: span == 0, Timeout: span}
	}
	if l.take() {
		l.p.o.ControlPersist = persist
	}
	return nil
}

func parseAddKeys(l *line) error {
	arg, life := l.next(), l.next()
	if arg == "" {
		l.p.log(-1, l.where()+": missing argument.")
	}
	value, ok := findState(statesAddKeys, arg)
	add := AddKeys{Mode: stateName(statesAddKeys, value)}
	span := life
	switch {
	case add.Mode == "confirm" && ok && life != "":
	case !ok && life == "":
		add.Mode, span = "yes", arg
	case !ok || life != "":
		return l.bad("unsupported option")
	}
	if span != "" || !ok {
		if add.Lifetime, ok = parseTime(span); !ok {
			if life != "" {
				return l.bad("invalid time value.")
			}
			return l.bad("unsupported option")
		}
	}
	if l.take() {
		l.p.o.AddKeysToAgent = add
	}
	return nil
}

func parsePortKeyword(l *line) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	port, ok := parsePort(arg)
	if !ok || port == 0 {
		return l.bad("Bad port '" + arg + "'.")
	}
	if l.take() {
		l.p.o.Port = port
	}
	return nil
}

func parseEscapeChar(l *line) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	c, ok := parseEscape(arg)
	if !ok {
		return l.bad("Bad escape character.")
	}
	if l.take() {
		l.p.o.EscapeChar = c
	}
	return nil
}

// parseEscape reads a character, ^ and a letter, or none.
func parseEscape(s string) (int, bool) {
	switch {
	case s == "none":
		return EscapeNone, true
	case len(s) == 1:
		return int(s[0]), true
	case len(s) == 2 && s[0] == '^' && s[1] >= 64 && s[1] < 128:
		return int(s[1] & 31), true
	}
	return 0, false
}

// parseForwardAgent takes yes, no, or another agent's socket.
func parseForwardAgent(l *line) error {
	arg := l.next()
	if arg == "" {
		return l.bad("missing argument.")
	}
	if on, ok := findState(statesFlag, arg); ok {
		if l.take() {
			l.p.o.ForwardAgent = on != 0
		}
		return nil
	}
	if l.take() {
		l.p.o.ForwardAgent = true
	}
	if err := l.checkAgentPath(arg); err != nil {
		return err
	}
	if *l.active && l.p.o.ForwardAgentSocket == "" {
		l.p.o.ForwardAgentSocket = arg
	}
	return nil
}

func parseIdentityAgent(l *line) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	if err := l.checkAgentPath(arg); err != nil {
		return err
	}
	if l.take() {
		l.p.o.IdentityAgent = arg
	}
	return nil
}

// checkAgentPath checks a socket's name that may be ${VAR} or, in an older form, $VAR.
func (l *line) checkAgentPath(arg string) error {
	if _, err := l.p.expand(arg, expandVars, nil); err != nil {
		l.p.logCause(err)
		return l.bad("Invalid environment expansion " + arg + ".")
	}
	if isLegacyVariable(arg) && !validEnvName(arg[1:]) {
		return l.bad("Invalid environment name " + arg + ".")
	}
	return nil
}

// logCause logs what an expansion stumbled on, without the line that gives up because of it.
func (p *parser) logCause(err error) {
	cause, _, _ := strings.Cut(err.Error(), "\n")
	p.log(-1, cause)
}

// isLegacyVariable reports whether s is $VAR.
func isLegacyVariable(s string) bool {
	return strings.HasPrefix(s, "$") && !strings.HasPrefix(s, "${")
}

func validEnvName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		letter := s[i] | 0x20
		if (letter < 'a' || letter > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '_' {
			return false
		}
	}
	return true
}

func parseFingerprintHash(l *line) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	name := strings.ToUpper(arg)
	switch name {
	case "MD5", "SHA1", "SHA256", "SHA384", "SHA512":
	default:
		return l.bad("Invalid hash algorithm \"" + arg + "\".")
	}
	if l.take() {
		l.p.o.FingerprintHash = name
	}
	return nil
}

// logLevels are the names of the levels; SILENT is Debian's.
var logLevels = [...]struct {
	name  string
	level LogLevel
}{
	{"QUIET", LogQuiet}, {"SILENT", LogQuiet}, {"FATAL", LogFatal}, {"ERROR", LogError}, {"INFO", LogInfo}, {"VERBOSE", LogVerbose},
	{"DEBUG", LogDebug1}, {"DEBUG1", LogDebug1}, {"DEBUG2", LogDebug2}, {"DEBUG3", LogDebug3},
}

// String returns the level as LogLevel has it.
func (l LogLevel) String() string {
	for _, known := range logLevels {
		if known.level == l {
			return known.name
		}
	}
	return strconv.Itoa(int(l))
}

func parseLogLevel(l *line) error {
	arg := l.next()
	for _, level := range logLevels {
		if strings.EqualFold(level.name, arg) {
			if l.take() {
				l.p.o.LogLevel = level.level
			}
			return nil
		}
	}
	return l.bad("unsupported log level '" + arg + "'")
}

// parseSyslogFacility stores even where its block doesn't apply. So does OpenSSH.
func parseSyslogFacility(l *line) error {
	arg := l.next()
	name := strings.ToUpper(arg)
	switch name {
	case "DAEMON", "USER", "AUTH", "AUTHPRIV", "LOCAL0", "LOCAL1", "LOCAL2", "LOCAL3", "LOCAL4", "LOCAL5",
		"LOCAL6", "LOCAL7":
	default:
		return l.bad("unsupported log facility '" + arg + "'")
	}
	if l.p.mark(kwSyslogFacility) {
		l.p.o.SyslogFacility = name
	}
	return nil
}

func parseRekeyLimit(l *line) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	var limit int64
	if arg != "default" {
		var failure string
		if limit, failure = parseScaled(arg); failure != "" {
			return l.bad("Bad number '" + arg + "': " + failure)
		}
		if limit != 0 && limit < 16 {
			return l.bad("RekeyLimit too small")
		}
	}
	if l.take() {
		l.p.o.RekeyLimit.Bytes = limit
	}
	if len(l.args) == 0 {
		return nil
	}
	span, none, err := l.span()
	if err == nil && !none && *l.active && !l.p.rekeyTimeSet {
		l.p.rekeyTimeSet = true
		l.p.o.RekeyLimit.Interval = span
	}
	return err
}

func parseBindMask(l *line) error {
	arg := l.next()
	if arg == "" {
		return l.bad("Missing StreamLocalBindMask argument.")
	}
	digits := len(arg) - len(strings.TrimLeft(arg, "01234567"))
	mask, err := strconv.ParseUint(arg[:digits], 8, 32)
	if err != nil || mask > 0o777 {
		return l.bad("Bad mask.")
	}
	if l.take() {
		l.p.o.StreamLocalBindMask = os.FileMode(mask)
	}
	return nil
}

func parseTunnelDeviceKeyword(l *line) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	device, ok := parseTunnelDevice(arg)
	if !ok {
		return l.bad("Bad tun device.")
	}
	if l.take() {
		l.p.o.TunnelDevice = device
	}
	return nil
}

// parseTunnelDevice reads local[:remote], each a number or any, and returns it in full.
func parseTunnelDevice(s string) (string, bool) {
	const most = 0x7ffffffd // SSH_TUNID_MAX, misc.h
	local, remote, both := strings.Cut(s, ":")
	if !both {
		remote = "any"
	}
	for _, part := range []*string{&local, &remote} {
		if strings.EqualFold(*part, "any") {
			*part = "any"
			continue
		}
		n, failure := atoi(*part)
		if failure != "" || n > most {
			return "", false
		}
		*part = strconv.Itoa(n)
	}
	return local + ":" + remote, true
}

// qualities are IPQoS's words with their values, in -G's order.
var qualities = [...]struct {
	name  string
	value int64
}{
	{"none", -1}, {"af11", 0x28}, {"af12", 0x30}, {"af13", 0x38}, {"af21", 0x48}, {"af22", 0x50}, {"af23", 0x58},
	{"af31", 0x68}, {"af32", 0x70}, {"af33", 0x78}, {"af41", 0x88}, {"af42", 0x90}, {"af43", 0x98}, {"cs0", 0x00},
	{"cs1", 0x20}, {"cs2", 0x40}, {"cs3", 0x60}, {"cs4", 0x80}, {"cs5", 0xa0}, {"cs6", 0xc0}, {"cs7", 0xe0},
	{"ef", 0xb8}, {"le", 0x04}, {"lowdelay", 0x10}, {"throughput", 0x08}, {"reliability", 0x04},
}

func parseIPQoS(l *line) error {
	var words [2]string
	for i := range words {
		arg := l.next()
		if arg == "" && i == 1 {
			words[1] = words[0]
			break
		}
		word, ok := qualityName(arg)
		if !ok {
			return l.bad("Bad IPQoS value: " + arg)
		}
		words[i] = word
	}
	if l.take() {
		l.p.o.IPQoS = words
	}
	return nil
}

// qualityName returns the word for a word or number.
func qualityName(arg string) (string, bool) {
	n, err := strconv.ParseInt(arg, 0, 16)
	if err != nil || n < 0 || n > 255 {
		n = -2
	}
	for _, q := range qualities {
		if strings.EqualFold(q.name, arg) {
			n = q.value
			break
		}
	}
	for _, q := range qualities {
		if q.value == n {
			return q.name, true
		}
	}
	if n < 0 {
		return "", false
	}
	const digits = "0123456789abcdef"
	return "0x" + digits[n>>4:n>>4+1] + digits[n&15:n&15+1], true
}

// TrafficClass is the byte that IPQoS asks for in the header of each packet: its first word for a session on a
// terminal, its second for others. ok is false where it is left to the system.
func (o *Options) TrafficClass() (class int, ok bool) {
	word := o.IPQoS[1]
	if o.TTY {
		word = o.IPQoS[0]
	}
	for _, q := range qualities {
		if q.name == word {
			return int(q.value), q.value >= 0
		}
	}
	n, err := strconv.ParseUint(word, 0, 8)
	return int(n), err == nil
}

// parseObscureTiming takes yes, no or interval:MILLISECONDS (9.5 and later). It has no effect here.
func parseObscureTiming(l *line) error {
	arg := l.next()
	switch interval, ok := strings.CutPrefix(arg, "interval:"); {
	case arg == "":
		return l.bad("missing argument")
	case len(l.args) > 0:
		return l.bad("invalid arguments")
	case ok:
		n, failure := atoi(interval)
		if failure != "" {
			return l.bad("integer value " + failure + ".")
		}
		if n < 1 || n > 1000 {
			return l.bad("value out of range.")
		}
	case arg != "yes" && arg != "true" && arg != "no" && arg != "false":
		return l.bad("unsupported argument \"" + arg + "\"")
	}
	if l.take() {
		l.p.o.ObscureKeystrokeTiming = arg
	}
	return nil
}

// parseWeakCrypto takes yes, no or no-pq-kex (10.1 and later). It has no effect here.
func parseWeakCrypto(l *line) error {
	arg := l.next()
	if _, ok := findState(statesFlag, arg); !ok && arg != "no-pq-kex" {
		return l.bad("unsupported option \"" + arg + "\".")
	}
	l.take()
	return nil
}

// parseVersionAddendum takes the rest of the line up to a comment (9.9 and later).
func parseVersionAddendum(l *line) error {
	l.args = nil
	text, _, _ := strings.Cut(l.rest, "#")
	if l.take() && !isNone(text) {
		l.p.o.VersionAddendum = strings.TrimRight(text, blanks)
	}
	return nil
}

// parseRefuse ends everything when its block applies (10.1 and later).
func parseRefuse(l *line) error {
	arg, err := l.needed()
	if err != nil {
		return err
	}
	if *l.active {
		return l.fatal("RefuseConnection: " + arg)
	}
	return nil
}
