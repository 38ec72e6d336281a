package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"ssm-ssh/internal/selfexec"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

// masterSpec is what a master is told by the call that starts it.
type masterSpec struct {
	Options  *sshopt.Options
	Path     string        // control path, absolute
	Persist  time.Duration // wait for a next client; <0: for ever
	Identity string        // see sharing
	Implicit bool          // nobody asked for this master: forwards end with the client that wanted them
}

// statusPathTaken tells the call that has started a master of another one on the same path.
const statusPathTaken = 1

// runMaster is the role of the background master (docs/decisions/005). Until it is ready it has its
// caller's terminal and stderr and says there what went wrong.
func runMaster(ctx context.Context) int {
	parent, err := selfexec.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ssm-ssh: "+masterVerb+": "+err.Error())
		return exitError
	}
	var spec masterSpec
	if err := parent.Options(&spec); err != nil || spec.Options == nil {
		parent.Fail("ssm-ssh: unreadable options", exitError) //nolint:errcheck // nobody else to tell
		return exitError
	}
	spec.Options.ControlPath = spec.Path // also one that nobody named is where the journal says that we are
	if spec.Options.UpdateHostKeys == "ask" {
		spec.Options.UpdateHostKeys = "no" // nobody is there to be asked, as with ControlPersist (ssh.c, main)
	}
	log, err := newLogSink(spec.Options)
	if err == nil {
		err = serveMaster(ctx, parent, spec, log)
	}
	if err == nil {
		return exitOK
	}
	status := statusPathTaken
	if !errors.Is(err, sshproxy.ErrControlPathTaken) {
		status = log.say(explain(err, spec.Options.Host))
	}
	parent.Fail("", status) //nolint:errcheck // after Ready there is nobody to tell
	return status
}

// serveMaster connects, lets go of the caller, and serves until the master's life is over. Closing
// the client on the way out ends the SSM session. A master that was asked for opens its maker's forwards
// itself, before anyone may come, and isn't there when one that matters fails (ssh.c, ssh_session2).
func serveMaster(ctx context.Context, parent *selfexec.Parent, spec masterSpec, log *logSink) (err error) {
	ctx, _, stop := withSignals(ctx)
	defer stop()
	client, err := connectForCaller(ctx, parent, spec, log)
	if err != nil {
		return err
	}
	forwarder := sshproxy.NewForwarder(client, forwardConfig(spec.Options, log))
	defer func() {
		forwarder.Stop()
		err = errors.Join(err, client.Close())
		forwarder.Close()
	}()
	if !spec.Implicit {
		maker := &caller{opts: spec.Options, log: log}
		if err := maker.startForwards(forwarder); err != nil {
			return err
		}
	}
	listener, err := sshproxy.Listen(spec.Path)
	if err != nil {
		return err
	}
	defer listener.Close()
	if err := parent.Detach(syscall.SIGPIPE); err != nil {
		return err
	}
	// A caller that died in this very moment leaves a master that nobody asked for.
	if err := parent.Ready(); err != nil {
		return err
	}
	cfg := masterConfig(spec.Options, spec.Identity, client, log)
	cfg.Persist, cfg.PersistSet = spec.Persist, true
	cfg.Forwarder, cfg.ForwardsEndWithClient = forwarder, spec.Implicit
	cfg.Idle, cfg.IdleAfter = returnMemory, restTime
	master := sshproxy.NewMaster(client, cfg)
	// A mux client relays its SIGWINCH to us: the protocol has no message for it (OpenSSH's mux.c,
	// control_client_sigrelay).
	defer watchWindow(master.WindowChanged)()
	return master.Serve(ctx, listener)
}

// restTime is how long a master has no client before it returns memory: longer than the pauses between
// the tasks of a play.
const restTime = 5 * time.Second

// returnMemory gives back what a master needed for its busiest moment (docs/decisions/007). The first
// collection only marks the buffers of pools as old.
func returnMemory() {
	runtime.GC()
	debug.FreeOSMemory()
}

// connectForCaller connects for as long as the caller lives.
func connectForCaller(ctx context.Context, parent *selfexec.Parent, spec masterSpec, log *logSink) (*sshproxy.Client, error) {
	ctx, release := parent.Context(ctx)
	defer release()
	return connect(ctx, spec.Options, log.Logf)
}
