package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/governor"
	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
)

const (
	// nodePause is the time between two tries to reach a node that is not connected, before jitter.
	nodePause = 4 * time.Second
	// failurePause is the time before the next try when the service has failed, before jitter, and
	// failuresAtMost how many such failures of one start are passed over.
	failurePause   = time.Second
	failuresAtMost = 2
)

// errQueueTimeout ends the wait for a turn.
var errQueueTimeout = errors.New("SSMQueueTimeout is over")

// connectLimit is ConnectTimeout as a context that can be stopped for a while: the time that a session's
// start waits for its turn doesn't count (docs/decisions/013). It ends with errConnectTimeout.
type connectLimit struct {
	ctx context.Context
	end context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer // nil: no limit
	rest  time.Duration
	since time.Time // when timer was started
}

// newConnectLimit starts the clock; 0 is no limit. release must be called.
func newConnectLimit(ctx context.Context, d time.Duration) *connectLimit {
	l := &connectLimit{rest: d, since: time.Now()}
	l.ctx, l.end = context.WithCancelCause(ctx)
	if d > 0 {
		l.timer = time.AfterFunc(d, func() { l.end(errConnectTimeout) })
	}
	return l
}

// pause stops the clock until the returned function is called.
func (l *connectLimit) pause() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil || !l.timer.Stop() {
		return func() {}
	}
	l.rest -= time.Since(l.since)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.since = time.Now()
		l.timer.Reset(l.rest)
	}
}

func (l *connectLimit) release() {
	if l.timer != nil {
		l.timer.Stop()
	}
	l.end(context.Canceled)
}

// turns gives the turns to start a session, in which all processes of the user share.
type turns struct {
	limit    *connectLimit
	governor *governor.Governor
	host     string
	queue    time.Duration // for all waiting for turns together
	node     time.Duration // for all waiting for the node
	logf     report.Logf

	nodeLimit time.Time // the end of the latter, once it has begun
	failures  int       // of the service
}

// newTurns returns the turns of an account's API.
func newTurns(limit *connectLimit, identity awsapi.Identity, opts *sshopt.Options, logf report.Logf) *turns {
	return &turns{limit: limit, governor: governor.At(pacePath(identity, "StartSession")), host: opts.Host,
		queue: opts.SSMQueueTimeout, node: max(opts.SSMWait, opts.ConnectTimeout), logf: logf}
}

// pace gives the turns of the calls that awsapi makes by itself. Each operation has a rate of its own, so that
// sessions that begin don't hold up those that end.
func pace(who awsapi.Identity, operation string) awsapi.Pacer {
	return governor.At(pacePath(who, operation))
}

// pacePath is the file of a rate, beside the journal. The service counts by account, region and operation.
func pacePath(identity awsapi.Identity, operation string) string {
	sum := sha256.Sum256([]byte(operation + "\n" + identity.Region + "\n" + identity.Endpoint + "\n" + accountOf(identity.AccessKeyID)))
	name := "pace-" + hex.EncodeToString(sum[:8])
	j, err := journal.Open()
	if err != nil {
		return filepath.Join(os.DevNull, name) // nowhere: each process finds its own pace
	}
	dir := filepath.Dir(j.Dir())
	os.MkdirAll(dir, 0o700) //nolint:errcheck // without it each process finds its own pace
	return filepath.Join(dir, name)
}

// take calls start when its turn has come, again and again while there is time and the call is refused for
// its rate or because the node isn't there yet, or, a few times, the service has failed. The last refusal says
// more than that the time is over.
func (t *turns) take(start func() error) error {
	ctx, cancel := context.WithTimeoutCause(t.limit.ctx, t.queue, errQueueTimeout)
	defer cancel()
	if err := t.first(ctx); err != nil {
		return &report.Error{Op: "start session", Target: t.host, Err: err,
			Hint: "the account's rate for this call is used up; a longer SSMQueueTimeout waits on"}
	}
	for {
		err := start()
		var over error
		switch {
		case err == nil:
			t.governor.Granted()
			return nil
		case errors.Is(err, awsapi.ErrThrottled):
			over = t.wait(ctx, t.governor.Refused)
		case errors.Is(err, awsapi.ErrNotConnected):
			over = t.awaitNode(ctx)
		case errors.Is(err, awsapi.ErrUnavailable) && t.failures < failuresAtMost:
			t.failures++
			over = sleep(ctx, failurePause/2+rand.N(failurePause))
		default:
			return err
		}
		if over != nil {
			return err
		}
	}
}

// first waits for the first turn. Who doesn't want to wait at all takes none.
func (t *turns) first(ctx context.Context) error {
	if t.queue == 0 {
		return context.Cause(t.limit.ctx)
	}
	return t.wait(ctx, t.governor.Turn)
}

// awaitNode waits a little for a node that isn't connected, and for another turn.
func (t *turns) awaitNode(ctx context.Context) error {
	t.governor.Granted()
	now := time.Now()
	if t.nodeLimit.IsZero() {
		t.nodeLimit = now.Add(t.node)
	}
	pause := nodePause*3/4 + rand.N(nodePause/2)
	if now.Add(pause).After(t.nodeLimit) {
		return awsapi.ErrNotConnected
	}
	t.logf(0, "%s: not connected to Systems Manager; trying for another %v", t.host, t.nodeLimit.Sub(now).Round(time.Second))
	defer t.limit.pause()() // nodeLimit is what counts
	if err := sleep(ctx, pause); err != nil {
		return err
	}
	return t.wait(ctx, t.governor.Turn)
}

// sleep waits; its error is the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wait is a wait of the governor's, without the clock of ConnectTimeout.
func (t *turns) wait(ctx context.Context, of func(context.Context, func(time.Duration)) error) error {
	defer t.limit.pause()()
	return of(ctx, func(rest time.Duration) {
		t.logf(0, "%s: waiting about %v to start a session, at the account's rate", t.host, max(rest, time.Second).Round(time.Second))
	})
}
