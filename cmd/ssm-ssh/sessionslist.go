package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/journal"
	"ssm-ssh/sshproxy"
)

// listed is a session as `ssm-ssh sessions list` shows it. What isn't known is null in JSON and a dash in
// the table.
type listed struct {
	Session  string    `json:"session,omitempty"` // empty: being started, or its id was never heard
	Target   string    `json:"target"`
	Owner    string    `json:"owner,omitempty"`
	State    string    `json:"state"` // live, stale, elsewhere; of other programs' the account's word
	Started  time.Time `json:"started"`
	Idle     *float64  `json:"idle_seconds"`
	Bytes    *uint64   `json:"bytes"` // both ways
	Region   string    `json:"region,omitempty"`
	Profile  string    `json:"profile,omitempty"`
	Document string    `json:"document,omitempty"`
	PID      int       `json:"pid,omitempty"`
	Control  string    `json:"control_path,omitempty"`
}

// list shows our own sessions, or the account's.
func (v *sessionsVerb) list(ctx context.Context, _ []string) error {
	items, err := v.journal.List()
	if err != nil {
		return err
	}
	var all []listed
	if v.all {
		api, err := v.api(ctx)
		if err != nil {
			return err
		}
		defer api.Close()
		active, err := api.ActiveSessions(ctx, awsapi.SessionQuery{})
		if err != nil {
			return err
		}
		all = v.listActive(ctx, active, items)
	} else {
		all = v.listOurs(ctx, items)
	}
	if v.json {
		return writeJSON(v.out, all)
	}
	return writeTable(v.out, all, time.Now())
}

func (v *sessionsVerb) listOurs(ctx context.Context, items []journal.Item) []listed {
	all := []listed{}
	for _, it := range items {
		l := listed{
			Session: it.Session, Target: it.Target, Owner: it.Owner, State: it.State.String(), Started: it.Began,
			Region: it.Region, Profile: it.Profile, Document: it.Document, PID: it.PID, Control: it.Control,
		}
		if it.State == journal.Live && it.Control != "" && it.Session != "" {
			if s, err := askMaster(ctx, it.Control); err == nil && s.Session == it.Session {
				l.Idle, l.Bytes = &s.Idle, &s.Bytes
			}
		}
		all = append(all, l)
	}
	return all
}

// statusExtension is the pair in our master's HELLO that tells about its session.
const statusExtension = "status@ssm-ssh"

// askLimit bounds the wait for one master's HELLO.
const askLimit = time.Second

// sessionStatus is its value, as JSON.
type sessionStatus struct {
	Session string
	Bytes   uint64  // of payload, both ways
	Idle    float64 // seconds since the node was last heard
}

// status is what a master says of its session.
func (s *nodeSession) status() sshproxy.Extension {
	stats := s.channel.Stats()
	text, err := json.Marshal(sessionStatus{s.session.ID, stats.BytesSent + stats.BytesReceived, time.Since(stats.LastHeard).Seconds()})
	if err != nil {
		panic("status cannot be encoded: " + err.Error()) // a string and finite numbers always can
	}
	return sshproxy.Extension{Name: statusExtension, Value: string(text)}
}

// askMaster asks the owner of a session about it.
func askMaster(ctx context.Context, path string) (s sessionStatus, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	mux, err := sshproxy.DialMux(ctx, path)
	if err != nil {
		return s, err
	}
	defer mux.Close()
	for _, e := range mux.Extensions() {
		if e.Name == statusExtension {
			err = json.Unmarshal([]byte(e.Value), &s)
		}
	}
	return s, err
}

// listActive lists the account's sessions; of ours among them the journal knows more.
func (v *sessionsVerb) listActive(ctx context.Context, active []awsapi.SessionInfo, items []journal.Item) []listed {
	all := []listed{}
	for _, info := range active {
		l := listed{State: strings.ToLower(info.Status)}
		ours := func(it journal.Item) bool { return it.Session == info.ID || info.Reason == reasonPrefix+it.Tag }
		if i := slices.IndexFunc(items, ours); i >= 0 {
			l = v.listOurs(ctx, items[i:i+1])[0]
		}
		l.Session, l.Target, l.Owner, l.Document, l.Started = info.ID, info.Target, info.Owner, info.Document, info.Started
		all = append(all, l)
	}
	slices.SortStableFunc(all, func(a, b listed) int { return a.Started.Compare(b.Started) }) // as listOurs has them
	return all
}

func writeJSON(w io.Writer, all []listed) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(all)
}

func writeTable(w io.Writer, all []listed, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SESSION\tTARGET\tOWNER\tAGE\tIDLE\tBYTES\tSTATE")
	for _, l := range all {
		idle, bytes := "", ""
		if l.Idle != nil {
			idle = ageText(time.Duration(*l.Idle * float64(time.Second)))
		}
		if l.Bytes != nil {
			bytes = strconv.FormatUint(*l.Bytes, 10)
		}
		cells := []string{l.Session, l.Target, l.Owner, ageText(now.Sub(l.Started)), idle, bytes, l.State}
		for i, cell := range cells {
			cells[i] = printable(firstOf(cell, "-"))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	return t.Flush()
}

// printable keeps what the account's list holds from moving the cursor.
func printable(cell string) string {
	return strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return '?'
		}
		return c
	}, cell)
}

// ageText is a duration in its two largest units.
func ageText(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	switch days := int(d.Hours()) / 24; {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, int(d.Hours())%24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}
