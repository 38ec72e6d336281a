package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/report"
	"ssm-ssh/sshproxy"
)

// A reaper ends the sessions whose owners have died, by their records (docs/decisions/010). One runs
// beside every new connection; `ssm-ssh sessions` has it run at once.

const (
	// reapLimit bounds the calls for one session.
	reapLimit = 15 * time.Second
	// reapGrace is how long a process that is at its end goes on with the session that it is at.
	reapGrace = 3 * time.Second
	// retryAfter is how long a session is let be that could not be ended: every try loads the profile of
	// its record, which may start other programs.
	retryAfter = 10 * time.Minute
	// intentLife is how long a session is looked for of which there is but the intent. StartSession may
	// have been under way when its caller died, and new sessions take a moment to be listed.
	intentLife = 30 * time.Second
	intentLook = 5 * time.Second // from one look to the next
	// staleLife is how long a record is kept of a session that could not be ended: by then it is over, since
	// the idle time-out, an hour at most, ends sessions that nobody owns.
	staleLife = 24 * time.Hour
)

// outcome is what came of a stale session.
type outcome int

const (
	reapEnded  outcome = iota // TerminateSession was answered
	reapNone                  // there was none, or it is over by now
	reapLater                 // of an intent nothing is to be seen yet
	reapFailed                // see the error
)

// reaped is a stale record and what came of it.
type reaped struct {
	journal.Record
	outcome outcome
	err     error
}

// reaper works off a journal. It is for one goroutine.
type reaper struct {
	journal *journal.Journal
	logf    report.Logf
	clients map[candidate]clientOrError
}

// candidate is a set-up that may have the rights of a session's owner.
type candidate struct{ region, endpoint, profile string }

type clientOrError struct {
	*awsapi.Client
	err error
}

func newReaper(j *journal.Journal, logf report.Logf) *reaper {
	return &reaper{journal: j, logf: logf, clients: make(map[candidate]clientOrError)}
}

// reapInBackground starts a reaper where there is anything to look at. finish ends it: what it is at gets a
// little time.
func reapInBackground(logf report.Logf) (finish func()) {
	j, err := journal.Open()
	if err != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ending, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tidyRuntime(false, logf)
		if !j.Empty() {
			newReaper(j, logf).run(ctx, ending)
		}
	}()
	return func() {
		close(ending)
		select {
		case <-gone:
		case <-time.After(reapGrace):
		}
		cancel()
		<-gone
	}
}

// run ends what is stale, and looks again as long as there are intents that may become sessions yet.
func (r *reaper) run(ctx context.Context, ending <-chan struct{}) {
	defer r.close()
	for began, again := time.Now(), true; again && time.Since(began) < 2*intentLife; { // whatever the clock on the wall says
		again = false
		for result := range r.pass(ctx, notTried, ending) {
			again = again || result.outcome == reapLater
			r.tell(result)
		}
		if !again {
			return
		}
		select {
		case <-time.After(intentLook):
		case <-ending:
			return
		}
	}
}

// notTried leaves out what has failed a short while ago. A failure to come is one before the clock was put back.
func notTried(it journal.Item) bool {
	since := time.Since(it.Failed)
	return since > retryAfter || since < 0
}

// tell says in the background what came of a session: to the user only that one is left.
func (r *reaper) tell(result reaped) {
	switch result.outcome {
	case reapEnded:
		r.logf(1, "SSM session %s of %s, left by process %d, terminated", result.Session, result.Target, result.PID)
	case reapFailed:
		r.logf(0, "ssm-ssh: %v", result.failure())
	}
}

// failure is the user's line for a session that could not be ended.
func (r reaped) failure() error {
	return &report.Error{Op: "end the session that a killed process has left", Target: r.Target, Err: r.err,
		Hint: "it ends at its idle time-out; ssm-ssh sessions list shows it"}
}

// pass goes through the stale records that are wanted, until ending is closed.
func (r *reaper) pass(ctx context.Context, wanted func(journal.Item) bool, ending <-chan struct{}) func(yield func(reaped) bool) {
	return func(yield func(reaped) bool) {
		items, err := r.journal.Stale(time.Now())
		if err != nil {
			r.logf(1, "journal: %v", err)
		}
		for _, it := range items {
			select {
			case <-ending:
				return
			default:
			}
			if !wanted(it) {
				continue
			}
			if result, mine := r.reap(ctx, it.Tag); mine && !yield(result) {
				return
			}
		}
	}
}

// reap ends the session of one stale record. mine is false when the record is somebody else's by now.
func (r *reaper) reap(ctx context.Context, tag string) (result reaped, mine bool) {
	entry, err := r.journal.Claim(tag)
	if errors.Is(err, journal.ErrHeld) || errors.Is(err, journal.ErrForeign) || errors.Is(err, fs.ErrNotExist) {
		return result, false
	}
	if err != nil {
		return reaped{journal.Record{Tag: tag}, reapFailed, err}, true
	}
	ctx, cancel := context.WithTimeout(ctx, reapLimit)
	defer cancel()
	r.removeSocket(entry.Record().Control)
	result = r.settle(ctx, entry)
	if result.outcome == reapEnded || result.outcome == reapNone {
		err = entry.Remove()
	} else {
		err = entry.Release()
	}
	if err != nil {
		r.logf(1, "journal: %v", err)
	}
	return result, true
}

// settle ends a claimed record's session and takes the notes.
func (r *reaper) settle(ctx context.Context, entry *journal.Entry) reaped {
	now := time.Now()
	result := reaped{Record: entry.Record()}
	result.Session, result.err = r.end(ctx, entry.Record())
	since := now.Sub(entry.Record().Stale)
	if entry.Record().Stale.IsZero() {
		since = 0
	}
	var noted error
	switch {
	case result.err == nil && result.Session != "":
		result.outcome = reapEnded
		return result
	case result.err == nil && since > intentLife, result.err != nil && since > staleLife:
		result.outcome = reapNone
		return result
	case result.err == nil:
		result.outcome = reapLater
		noted = entry.NoteStale(now)
	default:
		result.outcome = reapFailed
		noted = errors.Join(entry.NoteStale(now), entry.NoteFailed(now))
	}
	if noted != nil {
		r.logf(1, "journal: %v", noted)
	}
	return result
}

// end terminates a record's session, found by its tag where there is no id, and returns its id; none when
// there is no session to be seen. Those are tried in turn who may be its owner: the present environment,
// and the profile that the owner had.
func (r *reaper) end(ctx context.Context, record journal.Record) (session string, err error) {
	candidates := []candidate{{record.Region, record.Endpoint, ""}}
	if record.Profile != "" {
		candidates = append(candidates, candidate{record.Region, record.Endpoint, record.Profile})
	}
	for _, who := range candidates {
		api, clientErr := r.client(ctx, who, record)
		if clientErr != nil {
			err = clientErr // the last one's tells most: it is about the owner's own profile
			continue
		}
		if session, err = endAs(ctx, api, record); err == nil {
			return session, nil
		}
	}
	return record.Session, err
}

// endAs terminates a record's session as one caller.
func endAs(ctx context.Context, api *awsapi.Client, record journal.Record) (string, error) {
	ids := []string{record.Session}
	if record.Session == "" {
		var err error
		if ids, err = findSessions(ctx, api, record.Target, record.Tag); err != nil {
			return "", err
		}
	}
	session := ""
	for _, id := range ids {
		if err := api.TerminateSession(ctx, id); err != nil {
			return "", err
		}
		session = id
	}
	return session, nil
}

// client returns who may end a record's session. TerminateSession is answered with success for ids that
// the account doesn't know, so it must be the owner's account, at the endpoint where the session is.
func (r *reaper) client(ctx context.Context, who candidate, record journal.Record) (*awsapi.Client, error) {
	c, known := r.clients[who]
	if !known {
		c.Client, c.err = awsapi.New(ctx, awsapi.Options{Region: who.region, Endpoint: who.endpoint, Profile: who.profile, Pace: pace, Logf: r.logf})
		r.clients[who] = c
	}
	if c.err != nil {
		return nil, c.err
	}
	identity, err := c.Identity(ctx)
	switch {
	case err != nil:
		return nil, err
	case accountOf(identity.AccessKeyID) != record.Account:
		return nil, fmt.Errorf("the credentials at hand are of another account or user than the session's, %s", record.Account)
	case identity.Endpoint != record.Endpoint:
		return nil, fmt.Errorf("the API is set to %s, the session was started at another endpoint", identity.Endpoint)
	}
	return c.Client, nil
}

func (r *reaper) close() {
	for _, c := range r.clients {
		if c.Client != nil {
			c.Close()
		}
	}
}

// removeSocket takes away the control socket of an owner that has died.
func (r *reaper) removeSocket(path string) {
	if path == "" {
		return
	}
	if err := sshproxy.RemoveStale(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.logf(2, "control socket %s: %v", path, err)
	}
}
