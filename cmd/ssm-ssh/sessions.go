package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/journal"
	"ssm-ssh/internal/report"
)

func sessionsCommand() *cli.Command {
	account := []cli.Flag{
		&cli.StringFlag{Name: "region", Usage: "region of the account's sessions"},
		&cli.StringFlag{Name: "profile", Usage: "profile of the AWS configuration"},
	}
	return &cli.Command{
		Name:  "sessions",
		Usage: "show the SSM sessions of this program, and end those that are left behind",
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list sessions: those that this user's calls have started here",
				Flags: append([]cli.Flag{
					&cli.BoolFlag{Name: "all", Usage: "all that are active in the account and region, whoever has started them"},
					&cli.BoolFlag{Name: "json", Usage: "as JSON"},
				}, account...),
				Action: func(c *cli.Context) error { return sessionsAction(c, 0, 0, (*sessionsVerb).list) },
			},
			{
				Name: "kill", Usage: "terminate sessions", ArgsUsage: "ID… | --stale | --all-mine",
				Flags: append([]cli.Flag{
					&cli.BoolFlag{Name: "stale", Usage: "those whose process has died"},
					&cli.BoolFlag{Name: "all-mine", Usage: "all that the caller owns in the account and region, whatever has started them"},
				}, account...),
				Action: func(c *cli.Context) error { return sessionsAction(c, 0, -1, (*sessionsVerb).kill) },
			},
			{
				Name: "gc", Usage: "terminate the sessions, and remove the sockets and files, of processes that have died",
				Action: func(c *cli.Context) error { return sessionsAction(c, 0, 0, (*sessionsVerb).collect) },
			},
		},
		Action: func(*cli.Context) error { return cli.Exit("sessions: say list, kill or gc", exitUsage) },
	}
}

// sessionsVerb is one call of the verb.
type sessionsVerb struct {
	*cli.Context
	out     io.Writer
	journal *journal.Journal
	reaper  *reaper
	failed  bool // something was said on stderr
}

// sessionsAction runs a verb with between least and most arguments (most <0: any number).
func sessionsAction(c *cli.Context, least, most int, run func(*sessionsVerb) error) error {
	if n := c.Args().Len(); n < least || most >= 0 && n > most {
		return cli.Exit(fmt.Sprintf("sessions %s: takes no %q", c.Command.Name, c.Args().First()), exitUsage)
	}
	j, err := journal.Open()
	if err != nil {
		return cli.Exit(err, exitFailed)
	}
	v := &sessionsVerb{Context: c, out: c.App.Writer, journal: j, reaper: newReaper(j, report.Discard)}
	defer v.reaper.close()
	var usage cli.ExitCoder
	switch err := run(v); {
	case errors.As(err, &usage):
		return err
	case err != nil:
		return cli.Exit(err, exitFailed)
	case v.failed:
		return cli.Exit("", exitFailed)
	}
	return nil
}

// fail says an error and goes on; the status will be 1.
func (v *sessionsVerb) fail(err error) {
	v.failed = true
	fmt.Fprintln(os.Stderr, "ssm-ssh:", err)
}

// api is the account that the flags and the environment name.
func (v *sessionsVerb) api() (*awsapi.Client, error) {
	return awsapi.New(v.Context.Context, awsapi.Options{Region: v.String("region"), Profile: v.String("profile")})
}

// kill terminates what the arguments name.
func (v *sessionsVerb) kill() error {
	ids := v.Args().Slice()
	ways := 0
	for _, way := range []bool{v.Bool("stale"), v.Bool("all-mine"), len(ids) > 0} {
		if way {
			ways++
		}
	}
	switch {
	case ways != 1:
		return cli.Exit("sessions kill: takes ids, --stale or --all-mine, one of them", exitUsage)
	case v.Bool("stale"):
		v.reapAll()
		return nil
	case v.Bool("all-mine"):
		return v.killMine()
	}
	items, err := v.journal.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		i := slices.IndexFunc(items, func(it journal.Item) bool { return it.Session == id })
		if i >= 0 {
			err = v.killKnown(items[i])
		} else {
			err = v.killUnknown(id)
		}
		if err != nil {
			v.fail(err)
			continue
		}
		v.ended(id)
	}
	return nil
}

// killKnown ends a session of the journal as its owner. The record of a living process is that one's to
// remove; nobody else would remove those of other hosts.
func (v *sessionsVerb) killKnown(it journal.Item) error {
	ctx, cancel := context.WithTimeout(v.Context.Context, reapLimit)
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

// killUnknown ends a session that the journal doesn't know. TerminateSession is answered with success
// whatever the id, so the account is asked for it first.
func (v *sessionsVerb) killUnknown(id string) error {
	api, err := v.api()
	if err != nil {
		return err
	}
	defer api.Close()
	found, err := api.ActiveSessions(v.Context.Context, awsapi.SessionQuery{ID: id})
	if err == nil && len(found) == 0 {
		return fmt.Errorf("there is no active session %s; --region and --profile name where to look", id)
	}
	return api.TerminateSession(v.Context.Context, id) // where the list is refused, this may be granted
}

// killMine ends all sessions of the caller.
func (v *sessionsVerb) killMine() error {
	api, err := v.api()
	if err != nil {
		return err
	}
	defer api.Close()
	me, err := api.Caller(v.Context.Context)
	if err != nil {
		return err
	}
	all, err := api.ActiveSessions(v.Context.Context, awsapi.SessionQuery{})
	if err != nil {
		return err
	}
	for _, info := range all {
		if info.Owner != me {
			continue
		}
		if err := api.TerminateSession(v.Context.Context, info.ID); err != nil {
			v.fail(err)
			continue
		}
		v.ended(info.ID)
	}
	return nil
}

func (v *sessionsVerb) ended(id string) { fmt.Fprintf(v.out, "%s terminated\n", id) }

// collect is gc.
func (v *sessionsVerb) collect() error {
	v.reapAll()
	if removed := tidyRuntime(true, report.Discard); removed > 0 {
		fmt.Fprintf(v.out, "%d sockets and locks removed\n", removed)
	}
	return v.journal.Sweep(time.Now())
}

// reapAll ends the sessions of processes that have died.
func (v *sessionsVerb) reapAll() {
	always := func(journal.Item) bool { return true }
	for result := range v.reaper.pass(v.Context.Context, always, v.Context.Context.Done()) {
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
