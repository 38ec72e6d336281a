package sshopt

import "time"

// The values of this program's own keywords, whose names begin with SSM.

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
