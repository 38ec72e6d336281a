package sshopt

import "strings"

// state is one word of a keyword that takes one of a few. The lists are in OpenSSH's order
// (multistate_* in readconf.c), as -G prints the first word of a value.
type state struct {
	name  string
	value int
}

var (
	statesFlag = []state{{"yes", 1}, {"true", 1}, {"no", 0}, {"false", 0}}

	statesYesNoAsk = []state{{"true", 1}, {"false", 0}, {"yes", 1}, {"no", 0}, {"ask", 2}}

	statesStrict = []state{{"true", 1}, {"false", 0}, {"yes", 1}, {"no", 0}, {"ask", 2}, {"off", 0},
		{"accept-new", 3}}

	statesAddKeys = []state{{"true", 1}, {"false", 0}, {"yes", 1}, {"no", 0}, {"ask", 2}, {"confirm", 3}}

	statesFamily = []state{{"inet", 4}, {"inet6", 6}, {"any", 0}}

	statesMaster = []state{{"true", int(ControlMasterYes)}, {"yes", int(ControlMasterYes)},
		{"false", int(ControlMasterNo)}, {"no", int(ControlMasterNo)}, {"auto", int(ControlMasterAuto)},
		{"ask", int(ControlMasterAsk)}, {"autoask", int(ControlMasterAutoAsk)}}

	statesTunnel = []state{{"ethernet", 2}, {"point-to-point", 1}, {"true", 1}, {"yes", 1}, {"false", 0}, {"no", 0}}

	statesTTY = []state{{"true", int(RequestTTYYes)}, {"yes", int(RequestTTYYes)}, {"false", int(RequestTTYNo)},
		{"no", int(RequestTTYNo)}, {"force", int(RequestTTYForce)}, {"auto", int(RequestTTYAuto)}}

	statesSession = []state{{"none", int(SessionNone)}, {"subsystem", int(SessionSubsystem)},
		{"default", int(SessionDefault)}}

	statesCanonicalize = []state{{"true", int(CanonicalizeYes)}, {"false", int(CanonicalizeNo)},
		{"yes", int(CanonicalizeYes)}, {"no", int(CanonicalizeNo)}, {"always", int(CanonicalizeAlways)}}

	statesPubkey = []state{{"true", int(PubkeyYes)}, {"false", int(PubkeyNo)}, {"yes", int(PubkeyYes)},
		{"no", int(PubkeyNo)}, {"unbound", int(PubkeyUnbound)}, {"host-bound", int(PubkeyHostBound)}}

	statesCompression = []state{{"yes", 1}, {"no", 0}}
)

// stateSetter is a pointer to a field that has a type of its own for its states.
type stateSetter interface {
	setState(value int)
	state() int
}

func (v *ControlMaster) setState(n int) { *v = ControlMaster(n) }
func (v *RequestTTY) setState(n int)    { *v = RequestTTY(n) }
func (v *SessionType) setState(n int)   { *v = SessionType(n) }
func (v *Canonicalize) setState(n int)  { *v = Canonicalize(n) }
func (v *PubkeyAuth) setState(n int)    { *v = PubkeyAuth(n) }

func (v *ControlMaster) state() int { return int(*v) }
func (v *RequestTTY) state() int    { return int(*v) }
func (v *SessionType) state() int   { return int(*v) }
func (v *Canonicalize) state() int  { return int(*v) }
func (v *PubkeyAuth) state() int    { return int(*v) }

// findState returns the value of a word, in any case.
func findState(states []state, word string) (int, bool) {
	for _, s := range states {
		if strings.EqualFold(s.name, word) {
			return s.value, true
		}
	}
	return 0, false
}

// stateName returns the word that stands for value in Options: the first that isn't true or false.
func stateName(states []state, value int) string {
	for _, s := range states {
		if s.value == value && s.name != "true" && s.name != "false" {
			return s.name
		}
	}
	return ""
}

// storeState puts value into a field.
func storeState(field any, states []state, value int) {
	switch f := field.(type) {
	case *bool:
		*f = value != 0
	case *string:
		*f = stateName(states, value)
	case stateSetter:
		f.setState(value)
	}
}

// dumpState returns the word that -G prints for a field: the first of its value.
func dumpState(field any, states []state) string {
	value := 0
	switch f := field.(type) {
	case *bool:
		if *f {
			value = 1
		}
	case *string:
		value, _ = findState(states, *f)
	case stateSetter:
		value = f.state()
	}
	for _, s := range states {
		if s.value == value {
			return s.name
		}
	}
	return ""
}
