package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// recordLimit bounds a file that is read. One of ours has 1 KiB, and 40 bytes more for each time that
	// a reaper has failed on it.
	recordLimit = 64 << 10
	// fieldLimit bounds a field; the longest that the API knows, a target, has 400 characters.
	fieldLimit = 1024
	// tagBytes makes tags that nobody guesses or meets by chance.
	tagBytes = 16
)

// Record is what is known of a session. Region, Profile, Endpoint and Account say whose it is: what a
// client of AWS needs to be told to reach it again, and by which account it is known to be the right
// one. Session and Owner are empty until StartSession was answered.
type Record struct {
	Tag      string `json:"tag"` // see NewTag
	Target   string `json:"target"`
	Document string `json:"document,omitempty"`
	Region   string `json:"region,omitempty"`
	Profile  string `json:"profile,omitempty"`
	Endpoint string `json:"endpoint,omitempty"` // URL; empty: the region's own
	Account  string `json:"account,omitempty"`
	Control  string `json:"control,omitempty"` // path of the control socket that leads to the owner

	Place
	PID   int       `json:"pid"`
	Began time.Time `json:"began"`

	progress
}

// progress is what is appended to a record.
type progress struct {
	Session string    `json:"session,omitempty"`
	Owner   string    `json:"owner,omitempty"`
	Stale   time.Time `json:"stale,omitzero"`  // first seen without an owner
	Failed  time.Time `json:"failed,omitzero"` // last attempt to end it that came to nothing
}

// Place is where a process runs. Processes in one place see each other's locks.
type Place struct {
	Host      string `json:"host"`
	Namespace string `json:"namespace,omitempty"` // of process ids
	Boot      string `json:"boot,omitempty"`      // changes with every start of the system
}

// sameSystem says whether two places are one but for the times that the system was started since.
func (p Place) sameSystem(q Place) bool { return p.Host == q.Host && p.Namespace == q.Namespace }

var errMalformed = errors.New("not a record of the journal")

// parse reads a file: the intent, then what was appended. Of later lines those are passed over that
// make no sense, as a crash in mid-write leaves them.
func parse(text []byte) (Record, error) {
	var r Record
	first, rest, whole := bytes.Cut(text, []byte("\n"))
	if !whole || len(text) > recordLimit || json.Unmarshal(first, &r) != nil || !r.valid() {
		return Record{}, errMalformed
	}
	for {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if !whole {
			return r, nil
		}
		if next := r.progress; json.Unmarshal(line, &next) == nil && next.valid() {
			r.progress = next
		}
		rest = after
	}
}

// valid refuses what can't be acted on, or may not reach a terminal.
func (r Record) valid() bool {
	for _, field := range []string{r.Target, r.Document, r.Region, r.Profile, r.Endpoint, r.Account, r.Control, r.Host, r.Namespace, r.Boot} {
		if !plain(field) {
			return false
		}
	}
	return isTag(r.Tag) && r.Target != "" && r.Host != "" && inTime(r.Began) && r.progress.valid()
}

func (p progress) valid() bool {
	return plain(p.Session) && plain(p.Owner) && inTime(p.Stale) && inTime(p.Failed)
}

// plain accepts what is safe to print.
func plain(field string) bool {
	if len(field) > fieldLimit || !utf8.ValidString(field) {
		return false
	}
	for _, c := range field {
		if !unicode.IsGraphic(c) {
			return false
		}
	}
	return true
}

// inTime accepts the times that JSON can hold.
func inTime(t time.Time) bool { return t.Year() >= 0 && t.Year() <= 9999 }

// line is a value as the file has it.
func line(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("record cannot be encoded: " + err.Error()) // strings, numbers and times in time always can
	}
	return append(text, '\n')
}

// NewTag makes the unique name of a session, for its reason and for its record.
func NewTag() string {
	var b [tagBytes]byte
	rand.Read(b[:]) //nolint:errcheck // never fails: crypto/rand
	return hex.EncodeToString(b[:])
}

func isTag(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == tagBytes && hex.EncodeToString(raw) == s
}
