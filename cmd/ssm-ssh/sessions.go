package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/report"
)

func sessionsCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:        "sessions",
		ShortUsage:  "ssm-ssh sessions list | kill | gc",
		ShortHelp:   "show the SSM sessions of this program, and end those that are left behind",
		Subcommands: []*ffcli.Command{sessionsList(), sessionsKill(), sessionsCollect()},
		Exec:        func(context.Context, []string) error { return usageErrorf("sessions: say list, kill or gc") },
	}
}

func sessionsList() *ffcli.Command {
	v := newSessionsVerb("list")
	v.flags.BoolVar(&v.all, "all", false, "all that are active in the account and region, whoever has started them")
	v.flags.BoolVar(&v.json, "json", false, "as JSON")
	v.accountFlags()
	return v.command("ssm-ssh sessions list [options]", "list sessions: those that this user's calls have started here", v.list)
}

func sessionsKill() *ffcli.Command {
	v := newSessionsVerb("kill")
	v.takesIDs = true
	v.flags.BoolVar(&v.stale, "stale", false, "those whose process has died")
	v.flags.BoolVar(&v.allMine, "all-mine", false, "all that the caller owns in the account and region, whatever has started them")
	v.accountFlags()
	return v.command("ssm-ssh sessions kill [options] ID… | --stale | --all-mine", "terminate sessions", v.kill)
}

func sessionsCollect() *ffcli.Command {
	v := newSessionsVerb("gc")
	return v.command("ssm-ssh sessions gc", "terminate the sessions, and remove the sockets and files, of processes that have died", v.collect)
}

// sessionsVerb is one of the verbs, and one call of it.
type sessionsVerb struct {
	name     string
	flags    *flag.FlagSet
	takesIDs bool

	all, json, stale, allMine bool
	region, profile           string

	out     io.Writer
	journal *journal.Journal
	reaper  *reaper
	failed  bool // something was said on stderr
}

func newSessionsVerb(name string) *sessionsVerb {
	return &sessionsVerb{name: name, flags: newFlags(name), out: os.Stdout}
}

// accountFlags adds the options that name an account.
func (v *sessionsVerb) accountFlags() {
	v.flags.StringVar(&v.region, "region", "", "region of the account's sessions")
	v.flags.StringVar(&v.profile, "profile", "", "profile of the AWS configuration")
}

func (v *sessionsVerb) command(usage, help string, run func(ctx context.Context, ids []string) error) *ffcli.Command {
	return &ffcli.Command{Name: v.name, ShortUsage: usage, ShortHelp: help, FlagSet: v.flags,
		Exec: func(ctx context.Context, args []string) error { return v.run(ctx, args, run) }}
}

// run is a call of a verb.
func (v *sessionsVerb) run(ctx context.Context, args []string, run func(context.Context, []string) error) error {
	if len(args) > 0 && !v.takesIDs {
		return usageErrorf("sessions %s: takes no %q", v.name, args[0])
	}
	j, err := journal.Open()
	if err != nil {
		return &verbError{status: exitFailed, err: err}
	}
	v.journal, v.reaper = j, newReaper(j, report.Discard)
	defer v.reaper.close()
	var chosen *verbError
	switch err := run(ctx, args); {
	case errors.As(err, &chosen):
		return err
	case err != nil, v.failed:
		return &verbError{status: exitFailed, err: err}
	}
	return nil
}

// fail says an error and goes on; the status will be 1.
func (v *sessionsVerb) fail(err error) {
	v.failed = true
	fmt.Fprintln(os.Stderr, "ssm-ssh:", err)
}

// api is the account that the flags and the environment name.
func (v *sessionsVerb) api(ctx context.Context) (*awsapi.Client, error) {
	return awsapi.New(ctx, awsapi.Options{Region: v.region, Profile: v.profile, Pace: pace})
}

// kill terminates what the arguments name.
func (v *sessionsVerb) kill(ctx context.Context, ids []string) error {
	ways := 0
	for _, way := range []bool{v.stale, v.allMine, len(ids) > 0} {
		if way {
			ways++
		}
	}
	switch {
	case ways != 1:
		return usageErrorf("sessions kill: takes ids, --stale or --all-mine, one of them")
	case v.stale:
		v.reapAll(ctx)
		return nil
	case v.allMine:
		return v.killMine(ctx)
	}
	items, err := v.journal.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		i := slices.IndexFunc(items, func(it journal.Item) bool { return it.Session == id })
		whose := ""
		if i >= 0 {
			err = v.killKnown(ctx, items[i])
		} else {
			whose, err = v.killUnknown(ctx, id)
		}
		switch {
		case err != nil:
			v.fail(err)
		case whose != "":
			v.ended(id + " of " + printable(whose))
		default:
			v.ended(id)
		}
	}
	return nil
}

// killKnown ends a session of the journal as its owner. The record of a living process is that one's to
// remove; nobody else would remove those of other hosts.
func (v *sessionsVerb) killKnown(ctx context.Context, it journal.Item) error {
	ctx, cancel := context.WithTimeout(ctx, reapLimit)
	defer cancel()
	if it.State == journal.Stale {
		if result, mine := v.reaper.reap(ctx, it.Tag); mine {
			return result.err
		}
	}
	if _, err := v.reaper.end(ctx, it.Record); err != nil {
		return &report.Error{Op: "terminate session " + it.Session, Target: it.Target, Err: err}
	}
	if it.State == journal.Foreign {
		return v.journal.Forget(it.Tag)
	}
	return nil
}

// killUnknown ends a session that the journal doesn't know, and returns its owner: AWS may let the caller end those
// of others. TerminateSession is answered with success whatever the id, so the account is asked for it first.
func (v *sessionsVerb) killUnknown(ctx context.Context, id string) (owner string, err error) {
	api, err := v.api(ctx)
	if err != nil {
		return "", err
	}
	defer api.Close()
	found, err := api.ActiveSessions(ctx, awsapi.SessionQuery{ID: id})
	if err == nil && len(found) == 0 {
		return "", fmt.Errorf("there is no active session %s; --region and --profile name where to look", id)
	}
	if len(found) > 0 {
		owner = found[0].Owner
	}
	return owner, api.TerminateSession(ctx, id) // where the list is refused, this may be granted
}

// killMine ends all sessions of the caller.
func (v *sessionsVerb) killMine(ctx context.Context) error {
	api, err := v.api(ctx)
	if err != nil {
		return err
	}
	defer api.Close()
	me, err := api.Caller(ctx)
	if err != nil {
		return err
	}
	all, err := api.ActiveSessions(ctx, awsapi.SessionQuery{})
	if err != nil {
		return err
	}
	for _, info := range all {
		if info.Owner != me {
			continue
		}
		if err := api.TerminateSession(ctx, info.ID); err != nil {
			v.fail(err)
			continue
		}
		v.ended(info.ID)
	}
	return nil
}

func (v *sessionsVerb) ended(id string) { fmt.Fprintf(v.out, "%s terminated\n", id) }

// collect is gc.
func (v *sessionsVerb) collect(ctx context.Context, _ []string) error {
	v.reapAll(ctx)
	if removed := tidyRuntime(true, report.Discard); removed > 0 {
		fmt.Fprintf(v.out, "%d sockets and locks removed\n", removed)
	}
	return v.journal.Sweep(time.Now())
}

// reapAll ends the sessions of processes that have died.
func (v *sessionsVerb) reapAll(ctx context.Context) {
	always := func(journal.Item) bool { return true }
	for result := range v.reaper.pass(ctx, always, ctx.Done()) {
		switch result.outcome {
		case reapEnded:
			v.ended(result.Session)
		case reapLater:
			fmt.Fprintf(v.out, "%s: a session that may have been started is not to be seen yet\n", result.Target)
		case reapFailed:
			v.fail(result.failure())
		}
	}
}
