package sshopt

import (
	"slices"
	"time"
)

// own are this program's own keywords, sorted, as the documents spell them: they all begin with SSM, so that one
// IgnoreUnknown SSM* lets stock ssh read a file that has them. Each but those that belong to one host has a
// variable of the environment.
var own = [...]struct {
	id             keywordID
	name, variable string
}{
	{kwSSMAnswerAhead, "SSMAnswerAhead", "SSM_SSH_ANSWER_AHEAD"},
	{kwSSMDocument, "SSMDocument", "SSM_SSH_DOCUMENT"},
	{kwSSMEndpoint, "SSMEndpoint", "SSM_SSH_ENDPOINT"},
	{kwSSMKeepAlive, "SSMKeepAlive", "SSM_SSH_KEEP_ALIVE"},
	{kwSSMMultiplex, "SSMMultiplex", "SSM_SSH_MULTIPLEX"},
	{kwSSMPayloadBytes, "SSMPayloadBytes", "SSM_SSH_PAYLOAD_BYTES"},
	{kwSSMPingInterval, "SSMPingInterval", "SSM_SSH_PING_INTERVAL"},
	{kwSSMPort, "SSMPort", ""},
	{kwSSMProfile, "SSMProfile", "SSM_SSH_PROFILE"},
	{kwSSMQueueTimeout, "SSMQueueTimeout", "SSM_SSH_QUEUE_TIMEOUT"},
	{kwSSMRegion, "SSMRegion", "SSM_SSH_REGION"},
	{kwSSMResume, "SSMResume", "SSM_SSH_RESUME"},
	{kwSSMSendSignals, "SSMSendSignals", "SSM_SSH_SEND_SIGNALS"},
	{kwSSMSpareChannels, "SSMSpareChannels", "SSM_SSH_SPARE_CHANNELS"},
	{kwSSMTarget, "SSMTarget", ""},
	{kwSSMWait, "SSMWait", "SSM_SSH_WAIT"},
	{kwSSMWindowBytes, "SSMWindowBytes", "SSM_SSH_WINDOW_BYTES"},
}

// readVariables sets what the command line hasn't from the environment, which thus goes before all files. A
// value is one argument as it stands; an empty one counts as none.
func (p *parser) readVariables() error {
	bad := false
	for i := range own {
		value, ok := "", false
		if own[i].variable != "" {
			value, ok = p.env.Getenv(own[i].variable)
		}
		if !ok || value == "" {
			continue
		}
		on := true
		l := line{p: p, scope: &scope{file: own[i].variable, variable: true}, active: &on, word: keywords[own[i].id].name,
			kw: namedKeyword{keywords[own[i].id], own[i].id}, args: []string{value}, rest: value}
		if err := l.kw.parse(&l); err == errBadLine {
			bad = true
		} else if err != nil {
			return err
		}
	}
	if bad {
		return &Error{Code: exitStatus} // all is said already
	}
	return nil
}

// NodeName is the name by which SSM may know the host: what SSMTarget says, or the host's own. It is empty where
// the host is reached by other ways: by SSMTarget none, or by a ProxyCommand or ProxyJump.
func (o *Options) NodeName() string {
	switch {
	case isNone(o.SSMTarget):
		return ""
	case o.SSMTarget != "":
		return o.SSMTarget
	case o.ProxyCommand != "" && !isNone(o.ProxyCommand):
		return ""
	}
	return o.Host
}

// settleNode puts a ProxyCommand out of use that does no more than to start an SSM session, and carries over
// what it says. What the user set by our own keywords stays.
func (p *parser) settleNode() {
	o := p.o
	if p.overNodesOnly() {
		o.ProxyCommand = ""
		p.log(1, "SSM reaches "+o.Host+" without the jump over other nodes")
		return
	}
	if o.ProxyCommand == "" || len(o.ProxyJump) > 0 || o.ProxyUseFdpass || isNone(o.SSMTarget) || p.env.StartSession == nil {
		return
	}
	s, err := p.env.StartSession(o.ProxyCommand)
	switch {
	case err != nil:
		p.log(1, "ProxyCommand is run as written; not understood: "+err.Error())
		return
	case s.Target == "":
		return
	}
	p.log(1, "ProxyCommand starts an SSM session of "+s.Document+"; using the built-in transport in its place")
	o.ProxyCommand = ""
	for _, v := range [...]struct {
		id    keywordID
		value string
	}{
		{kwSSMTarget, s.Target}, {kwSSMDocument, s.Document}, {kwSSMRegion, s.Region}, {kwSSMProfile, s.Profile},
		{kwSSMEndpoint, s.Endpoint},
	} {
		if v.value != "" && !p.isSet(v.id) {
			*keywords[v.id].field(p).(*string) = v.value
			p.log(1, "ProxyCommand sets "+keywords[v.id].name+" "+v.value)
		}
	}
	if p.isSet(kwSSMPort) {
		return
	}
	switch s.Port {
	case o.Port:
	case 0:
		o.SSMPort = SSMPortNone
	default:
		o.SSMPort = s.Port
	}
}

// overNodesOnly reports a node that is to be reached over other nodes and nothing else, as the second of two jumps
// is. None of them could know it by this name, and SSM reaches it from anywhere.
func (p *parser) overNodesOnly() bool {
	o, isTarget := p.o, p.env.IsTarget
	if len(o.ProxyJump) == 0 || o.SSMTarget != "" || isTarget == nil || !isTarget(o.Host) {
		return false
	}
	return !slices.ContainsFunc(o.ProxyJump, func(j Jump) bool { return !isTarget(j.Host) })
}

// parseSSMPort takes a port, or none to leave it to the document.
func parseSSMPort(l *line) error {
	arg := l.next()
	port, ok := parsePort(arg)
	switch {
	case isNone(arg):
		port = SSMPortNone
	case !ok || port == 0:
		return l.bad("Bad port '" + arg + "'.")
	}
	if l.take() {
		l.p.o.SSMPort = port
	}
	return nil
}

// The values of this program's own keywords.

// parseSSMSpan takes a time, yes for the default, or no for never.
func parseSSMSpan(l *line) error {
	arg := l.next()
	field := l.kw.field(l.p).(*time.Duration)
	if on, ok := findState(statesFlag, arg); ok || isNone(arg) {
		if l.take() && on != 0 {
			for _, d := range defaultSpans {
				if d.id == l.kw.id {
					*field = d.span
				}
			}
		}
		return nil
	}
	span, ok := parseTime(arg)
	if !ok {
		return l.bad("invalid time value.")
	}
	if l.take() {
		*field = span
	}
	return nil
}

// ownRanges bound the keywords of the data channel, in their units: bytes and seconds. Payloads are what
// is proven against AWS, the window what the channel can hold as messages of that size, the interval
// what notices a loss in time and keeps a NAT's table from forgetting the connection.
var ownRanges = [...]struct {
	id          keywordID
	least, most int
	text        string
}{
	{kwSSMPayloadBytes, 1024, 1536, "SSMPayloadBytes must be 1024 to 1536."},
	{kwSSMPingInterval, 5, 60, "SSMPingInterval must be 5 seconds to 1 minute."},
	{kwSSMWindowBytes, 64 << 10, 8 << 20, "SSMWindowBytes must be 65536 to 8388608."},
}

// outside returns what is wrong with a value of this line's keyword; empty: nothing.
func (l *line) outside(n float64) string {
	for i := range ownRanges {
		if r := &ownRanges[i]; r.id == l.kw.id && (n < float64(r.least) || n > float64(r.most)) {
			return r.text
		}
	}
	return ""
}

// parseSSMInt takes a number within the keyword's range.
func parseSSMInt(l *line) error {
	n, failure := atoi(l.next())
	if failure != "" {
		return l.bad("integer value " + failure + ".")
	}
	if text := l.outside(float64(n)); text != "" {
		return l.bad(text)
	}
	if l.take() {
		*l.kw.field(l.p).(*int) = n
	}
	return nil
}

// parseSSMInterval takes a time within the keyword's range.
func parseSSMInterval(l *line) error {
	span, ok := parseTime(l.next())
	if !ok {
		return l.bad("invalid time value.")
	}
	if text := l.outside(span.Seconds()); text != "" {
		return l.bad(text)
	}
	if l.take() {
		*l.kw.field(l.p).(*time.Duration) = span
	}
	return nil
}
