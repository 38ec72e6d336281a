package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
)

const (
	// startLimit bounds StartSession once it is on its way.
	startLimit = 20 * time.Second
	// startGrace is how much longer its answer is waited for when the user has given up: to hear the id of
	// a session is better than to have to look for it.
	startGrace = 5 * time.Second
	// terminateLimit bounds the end of a session: TerminateSession (5 s), and the wait for its turn when
	// hundreds end at the same time.
	terminateLimit = time.Minute
	// lookLimit bounds the search for a session that may have been started although its answer was lost.
	// What isn't found then, a reaper looks for.
	lookLimit = 2 * time.Second
	firstLook = 100 * time.Millisecond // from the first look to the second; each later pause is twice as long
)

// reasonPrefix begins the reason of every session of ours; its tag follows, by which a session is known
// whose id nobody has heard.
const reasonPrefix = "ssm-ssh "

// ssmSession is a session of ours, from the intent to start it to its end (docs/decisions/010).
type ssmSession struct {
	awsapi.Session
	api   *awsapi.Client
	tag   string
	entry *journal.Entry // nil: the journal can't be written
	logf  report.Logf

	endOnce sync.Once
	endErr  error // of end
}

// documentOf is the document that the session is of.
func documentOf(opts *sshopt.Options) string {
	if opts.SSMDocument == "" {
		return defaultDocument
	}
	return opts.SSMDocument
}

// sshdPort is where sshd listens on the node; 0 where the document has it.
func sshdPort(opts *sshopt.Options) int {
	switch opts.SSMPort {
	case 0:
		return opts.Port
	case sshopt.SSMPortNone:
		return 0
	}
	return opts.SSMPort
}

// startSession starts a session when its turn has come. Whatever happens, one that was started is ended or
// remembered.
func startSession(limit *connectLimit, api *awsapi.Client, node target.Target, opts *sshopt.Options, logf report.Logf) (*ssmSession, error) {
	ctx := limit.ctx
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	in := awsapi.StartInput{
		Target: node.NodeID, Document: documentOf(opts), Parameters: map[string][]string{},
	}
	if port := sshdPort(opts); port > 0 {
		in.Parameters["portNumber"] = []string{strconv.Itoa(port)}
	}
	if host := remoteHost(opts); host != "" {
		in.Parameters["host"] = []string{host}
	}
	identity, err := api.Identity(ctx)
	if err != nil {
		logf(1, "%v", err) // StartSession will say so
	}
	var s *ssmSession
	err = newTurns(limit, identity, opts, logf).take(func() error {
		// Each attempt has a tag of its own: what one of them may have left is not the next one's.
		s = &ssmSession{api: api, tag: journal.NewTag(), logf: logf}
		in.Reason = reasonPrefix + s.tag
		s.intend(identity, in, node, opts)
		return s.start(ctx, in)
	})
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		s.end()
		return nil, context.Cause(ctx)
	}
	return s, nil
}

// intend writes down what is about to be started. Without a journal, as where the home folder can't be
// written, there is a session all the same: it is only not safe from a crash of ours.
func (s *ssmSession) intend(identity awsapi.Identity, in awsapi.StartInput, node target.Target, opts *sshopt.Options) {
	control := ""
	if opts.ControlPath != "" {
		control, _ = filepath.Abs(opts.ControlPath) //nolint:errcheck // only where there is no working folder
	}
	j, err := journal.Open()
	if err == nil {
		s.entry, err = j.Begin(journal.Record{
			Tag: s.tag, Target: in.Target, Document: in.Document, Region: identity.Region, Endpoint: identity.Endpoint,
			Profile: identityOf(opts, node).Profile, Account: accountOf(identity.AccessKeyID), Control: control,
		})
	}
	if err != nil {
		s.logf(0, "ssm-ssh: %v", &report.Error{Op: "keep a journal of sessions", Target: opts.Host, Err: err,
			Hint: "should this process be killed, its session ends at the idle time-out only; XDG_STATE_HOME names another folder"})
	}
}

// start calls StartSession. Once begun the call isn't given up with ctx at once.
func (s *ssmSession) start(ctx context.Context, in awsapi.StartInput) error {
	calling, cancel := outlasting(ctx, startLimit, startGrace)
	defer cancel()
	var err error
	s.Session, err = s.api.StartSession(calling, in)
	switch {
	case err == nil:
		if err := s.entry.Started(s.ID, ownerOf(s.ID)); err != nil {
			s.logf(1, "journal: %v", err) // the tag is there, and leads to the session too
		}
		return nil
	case errors.Is(err, awsapi.ErrMayHaveStarted):
		return s.recover(err, in.Target)
	}
	if err := s.entry.Remove(); err != nil {
		s.logf(1, "journal: %v", err)
	}
	return err
}

// outlasting returns a context that lasts for at most limit, and longer than ctx by at most grace.
func outlasting(ctx context.Context, limit, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	longer, cancelLimit := context.WithTimeout(longer, limit)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			cancel(context.Cause(ctx))
		case <-ended:
		}
	})
	return longer, func() {
		stop()
		close(ended)
		cancelLimit()
		cancel(context.Canceled)
	}
}

// recover looks for the session of a call whose answer was lost, and ends it.
func (s *ssmSession) recover(err error, node string) error {
	ctx, cancel := context.WithTimeout(context.Background(), lookLimit)
	defer cancel()
	for pause := firstLook; ; pause *= 2 {
		ids, lookErr := findSessions(ctx, s.api, node, s.tag)
		if len(ids) > 0 {
			s.ID = ids[0]
			if s.end(); s.endErr != nil {
				return err
			}
			return withHint(err, "the session that was started all the same is ended")
		}
		if lookErr != nil {
			s.logf(1, "%v", lookErr)
		}
		select {
		case <-time.After(pause):
			continue
		case <-ctx.Done():
		}
		if s.entry == nil {
			return err
		}
		s.release()
		return withHint(err, "a session may have been started; the next start looks for it and ends it")
	}
}

// withHint gives the user's line another next step.
func withHint(err error, hint string) error {
	var line *report.Error
	if !errors.As(err, &line) {
		return err
	}
	told := *line
	told.Hint = hint
	return &told
}

// findSessions returns the ids of the living sessions with a tag. More than one there is only when the
// service has taken one call for two.
func findSessions(ctx context.Context, api *awsapi.Client, node, tag string) ([]string, error) {
	all, err := api.ActiveSessions(ctx, awsapi.SessionQuery{Target: node})
	var ids []string
	for _, info := range all {
		if info.Reason == reasonPrefix+tag {
			ids = append(ids, info.ID)
		}
	}
	return ids, err
}

// ownerOf is who started a session: its id begins with the name of the user or of the role's session.
func ownerOf(id string) string {
	if end := strings.LastIndexByte(id, '-'); end > 0 {
		return id[:end]
	}
	return ""
}

// end calls TerminateSession, whatever became of the caller's context, and forgets the session when that
// was answered. Else the failure is said and the session left to a reaper. Only the first call does
// anything.
func (s *ssmSession) end() { s.endOnce.Do(func() { s.endErr = s.endNow() }) }

func (s *ssmSession) endNow() error {
	if err := terminate(s.api, s.ID); err != nil {
		hint := "until the idle time-out of the account's session preferences"
		if s.entry != nil {
			hint = "for the next start to end; ssm-ssh sessions list shows it"
		}
		s.logf(-1, "ssm-ssh: %v; SSM session %s is left, %s", err, s.ID, hint)
		s.release()
		return err
	}
	s.logf(1, "SSM session %s terminated", s.ID)
	if err := s.entry.Remove(); err != nil {
		s.logf(1, "journal: %v", err)
	}
	return nil
}

// release leaves the session to a reaper.
func (s *ssmSession) release() {
	if err := s.entry.Release(); err != nil {
		s.logf(1, "journal: %v", err)
	}
}

// terminate calls TerminateSession for at most its time.
func terminate(api *awsapi.Client, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), terminateLimit)
	defer cancel()
	return api.TerminateSession(ctx, id)
}
