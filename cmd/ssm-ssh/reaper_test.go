package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
	"ssm-ssh/test/lab"
)

// reaperRig is a lab whose environment is this process's, with the journal in it.
type reaperRig struct {
	*testing.T
	*lab.Lab
	api     *awsapi.Client
	journal *journal.Journal
}

func newReaperRig(t *testing.T) *reaperRig {
	t.Helper()
	l, err := lab.Start(t.Context(), lab.Options{InProcessSSHD: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, kv := range l.Env() {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	r := &reaperRig{T: t, Lab: l}
	if r.api, err = awsapi.New(t.Context(), awsapi.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.api.Close)
	if r.journal, err = journal.Open(); err != nil || !strings.HasPrefix(r.journal.Dir(), l.Dir()) {
		t.Fatalf("journal %v, %v: the lab's own is wanted", r.journal, err)
	}
	return r
}

// start starts a session that is ours.
func (r *reaperRig) start() *ssmSession {
	r.Helper()
	s, err := startSession(newConnectLimit(r.Context(), 0), r.api, target.Target{NodeID: r.Targets()[0]}, &sshopt.Options{Host: "n", Port: 22, SSMQueueTimeout: time.Minute}, report.Discard)
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// leave starts a session whose owner dies.
func (r *reaperRig) leave() {
	r.Helper()
	if err := r.start().entry.Release(); err != nil {
		r.Fatal(err)
	}
}

func always(journal.Item) bool { return true }

// pass has a new reaper go through the journal once.
func (r *reaperRig) pass(wanted func(journal.Item) bool) (all []reaped) {
	reaper := newReaper(r.journal, r.logf)
	defer reaper.close()
	for result := range reaper.pass(r.Context(), wanted, nil) {
		all = append(all, result)
	}
	return all
}

// logf is a report.Logf that ends in the test's log.
func (r *reaperRig) logf(_ int, format string, args ...any) { r.Logf(format, args...) }

// want checks what a pass came to, and what it has left.
func (r *reaperRig) want(got []reaped, outcome outcome, sessions, records int) {
	r.Helper()
	if len(got) != 1 || got[0].outcome != outcome {
		r.Errorf("results %+v, want one of %d", got, outcome)
	}
	r.wantLeft(sessions, records)
}

func (r *reaperRig) wantLeft(sessions, records int) {
	r.Helper()
	items, err := r.journal.List()
	if c := r.Settle(r.Context(), 0); c.LiveSessions != sessions || len(items) != records || err != nil {
		r.Errorf("%d sessions and the records %+v, %v are left; want %d and %d", c.LiveSessions, items, err, sessions, records)
	}
}

func TestReaperEndsWhatIsStale(t *testing.T) {
	r := newReaperRig(t)
	living := r.start()
	r.leave()
	r.want(r.pass(always), reapEnded, 1, 1)
	if got := r.pass(always); len(got) != 0 {
		t.Errorf("once more: %+v", got)
	}
	if living.end(); living.endErr != nil {
		t.Error(living.endErr)
	}
	r.wantLeft(0, 0)
}

// Of an intent there is but the tag; a session of somebody else's on the same node is none of it.
func TestReaperFindsASessionByItsTag(t *testing.T) {
	r := newReaperRig(t)
	e, err := r.intend()
	if err != nil {
		t.Fatal(err)
	}
	tag := e.Record().Tag
	for _, reason := range []string{reasonPrefix + tag, reasonPrefix + journal.NewTag(), ""} {
		if _, err := r.api.StartSession(t.Context(), awsapi.StartInput{Target: r.Targets()[0], Document: defaultDocument, Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	e.Release()
	r.want(r.pass(always), reapEnded, 2, 0)
}

func TestIntentThatBecameNoSession(t *testing.T) {
	r := newReaperRig(t)
	r.Faults().FailAPI("StartSession", "TargetNotConnected", 0)
	opts := &sshopt.Options{Host: "n", Port: 22, SSMQueueTimeout: time.Minute}
	if _, err := startSession(newConnectLimit(t.Context(), 0), r.api, target.Target{NodeID: r.Targets()[0]}, opts, r.logf); err == nil {
		t.Fatal("no error")
	}
	r.wantLeft(0, 0) // a refusal is an answer
	s := &ssmSession{api: r.api, tag: journal.NewTag(), logf: r.logf}
	identity, err := r.api.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.intend(identity, awsapi.StartInput{Target: r.Targets()[0]}, target.Target{}, opts)
	s.release()
	r.want(r.pass(notTried), reapLater, 0, 1)
	r.want(r.pass(notTried), reapLater, 0, 1) // it is looked for again without a pause
	r.age(2 * intentLife)
	r.want(r.pass(notTried), reapNone, 0, 0)
}

// TestNotTried: a session is let be for a while after a failure, also when the clock was put back since.
func TestNotTried(t *testing.T) {
	for since, want := range map[time.Duration]bool{time.Second: false, retryAfter + time.Second: true, -time.Hour: true} {
		it := journal.Item{}
		it.Failed = time.Now().Add(-since)
		if got := notTried(it); got != want {
			t.Errorf("failed %v ago: %v", since, got)
		}
	}
}

// TestReaperAndTheList: a session that was left behind without an id is ended though it is not listed at
// once, nor on the first page; one whose StartSession is on its way is not touched.
func TestReaperAndTheList(t *testing.T) {
	const others = 60 // more than a page
	r := newReaperRig(t)
	left, err := r.intend()
	if err != nil {
		t.Fatal(err)
	}
	r.startAs(left.Record().Tag)
	for range others {
		r.startAs("")
	}
	living, err := r.intend()
	if err != nil {
		t.Fatal(err)
	}
	defer living.Release()
	r.startAs(living.Record().Tag)
	left.Release()
	r.Faults().Set(lab.FaultSet{ListLagMillis: 3_600_000})
	r.want(r.pass(notTried), reapLater, others+2, 2)
	r.Faults().Clear()
	r.want(r.pass(notTried), reapEnded, others+1, 1)
	if got := r.pass(always); len(got) != 0 {
		t.Errorf("once more: %+v", got)
	}
}

// intend writes an intent.
func (r *reaperRig) intend() (*journal.Entry, error) {
	identity, err := r.api.Identity(r.Context())
	if err != nil {
		return nil, err
	}
	return r.journal.Begin(journal.Record{Tag: journal.NewTag(), Target: r.Targets()[0], Region: identity.Region,
		Endpoint: identity.Endpoint, Account: accountOf(identity.AccessKeyID)})
}

// startAs starts a session with a tag, of which nobody hears.
func (r *reaperRig) startAs(tag string) {
	r.Helper()
	if _, err := r.api.StartSession(r.Context(), awsapi.StartInput{Target: r.Targets()[0], Document: defaultDocument, Reason: reasonPrefix + tag}); err != nil {
		r.Fatal(err)
	}
}

// age makes the only record one that was found stale a while ago.
func (r *reaperRig) age(since time.Duration) {
	r.Helper()
	items, err := r.journal.List()
	if err != nil || len(items) != 1 {
		r.Fatalf("%+v, %v", items, err)
	}
	path := filepath.Join(r.journal.Dir(), items[0].Tag)
	text, err := os.ReadFile(path)
	if err == nil {
		stamp := `{"stale":"` + time.Now().Add(-since).UTC().Format(time.RFC3339) + `"}`
		err = os.WriteFile(path, []byte(string(text)+"\n"+stamp+"\n"), 0o600)
	}
	if err != nil {
		r.Fatal(err)
	}
}

// TestReaperWithoutTheOwner: what can't be ended is kept, let be for a while, and forgotten at last.
func TestReaperWithoutTheOwner(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		set        func(*reaperRig)
	}{
		{"another account", "the credentials at hand are of another account or user", func(r *reaperRig) {
			r.Setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
			file := filepath.Join(r.TempDir(), "credentials")
			if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = AKIATHIRD\naws_secret_access_key = x\n"), 0o600); err != nil {
				r.Fatal(err)
			}
			r.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
		}},
		{"no profile any more", `there is no profile "default"`, func(r *reaperRig) {
			r.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
			r.Setenv("AWS_CONFIG_FILE", os.DevNull)
		}},
		{"no right", "AccessDeniedException", func(r *reaperRig) {
			r.Faults().FailAPI("TerminateSession", "AccessDeniedException", 0)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReaperRig(t)
			r.leave()
			tt.set(r)
			got := r.pass(notTried)
			r.want(got, reapFailed, 1, 1)
			if text := got[0].failure().Error(); !strings.Contains(text, tt.want) {
				t.Errorf("said %q, want %q in it", text, tt.want)
			}
			if c := r.Counts(); tt.name != "no right" && c.TerminateSession != 0 {
				t.Error("TerminateSession was called with a stranger's credentials")
			}
			if got := r.pass(notTried); len(got) != 0 {
				t.Errorf("tried again at once: %+v", got)
			}
			r.want(r.pass(always), reapFailed, 1, 1)
			r.age(2 * staleLife)
			r.want(r.pass(always), reapNone, 1, 0)
		})
	}
}

// The owner's profile is tried when the environment is a stranger's.
func TestReaperTakesTheOwnersProfile(t *testing.T) {
	r := newReaperRig(t)
	r.leave()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
	r.want(r.pass(always), reapEnded, 0, 0)
}

// A record without an endpoint is about the region's own: another one may be anybody's.
func TestReaperAtAnotherEndpoint(t *testing.T) {
	r := newReaperRig(t)
	s := &ssmSession{api: r.api, tag: journal.NewTag(), logf: r.logf}
	identity, err := r.api.Identity(t.Context())
	if err == nil {
		s.entry, err = r.journal.Begin(journal.Record{Tag: s.tag, Target: "mi-1", Region: identity.Region, Account: accountOf(identity.AccessKeyID)})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.release()
	if got := r.pass(always); len(got) != 1 || got[0].err == nil || !strings.Contains(got[0].err.Error(), "the session was started at another endpoint") {
		t.Errorf("got %+v", got)
	}
}

func TestManyReapersAtOnce(t *testing.T) {
	const left, reapers = 5, 4
	r := newReaperRig(t)
	for range left {
		r.leave()
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var results []reaped
	for range reapers {
		wg.Go(func() {
			got := r.pass(always)
			mu.Lock()
			defer mu.Unlock()
			results = append(results, got...)
		})
	}
	wg.Wait()
	// Reapers that look at one record at the same time may leave it to each other.
	results = append(results, r.pass(always)...)
	r.wantLeft(0, 0)
	if c := r.Counts(); len(results) != left || c.TerminateSession != left {
		t.Errorf("%d results and %d calls for %d sessions: %+v", len(results), c.TerminateSession, left, results)
	}
}

// TestPanicEndsTheSession: a panic between StartSession's answer and the first message.
func TestPanicEndsTheSession(t *testing.T) {
	r := newReaperRig(t)
	bug := errors.New("a bug")
	func() {
		defer func() {
			if got := recover(); got != bug {
				t.Errorf("recovered %v", got)
			}
		}()
		logf := func(_ int, format string, _ ...any) {
			if format == "SSM session %s started" {
				panic(bug)
			}
		}
		openSessionOn(newConnectLimit(t.Context(), 0), target.Target{NodeID: r.Targets()[0]}, &sshopt.Options{Host: "n", Port: 22, SSMQueueTimeout: time.Minute}, logf) //nolint:errcheck // panics
	}()
	if c := r.Counts(); c.StartSession != 1 {
		t.Errorf("%d sessions were started", c.StartSession)
	}
	r.wantLeft(0, 0)
}

func TestOutlasting(t *testing.T) {
	why := errors.New("the user gave up")
	ctx, giveUp := context.WithCancelCause(t.Context())
	longer, cancel := outlasting(ctx, time.Minute, 50*time.Millisecond)
	defer cancel()
	giveUp(why)
	if longer.Err() != nil {
		t.Error("it ends with its context")
	}
	<-longer.Done()
	if got := context.Cause(longer); got != why {
		t.Errorf("cause %v", got)
	}
	limited, cancelLimited := outlasting(t.Context(), time.Millisecond, time.Minute)
	defer cancelLimited()
	<-limited.Done()
	if !errors.Is(limited.Err(), context.DeadlineExceeded) {
		t.Error(limited.Err())
	}
}
