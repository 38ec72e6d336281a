package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/peterbourgon/ff/v3/ffcli"
)

// verbError is a verb's failure with an exit code of its own choice. What isn't one is a failure of usage:
// the parser's.
type verbError struct {
	status int
	err    error // nil: all was said
}

func (e *verbError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *verbError) Unwrap() error { return e.err }

// usageErrorf is a failure of usage.
func usageErrorf(format string, args ...any) error {
	return &verbError{status: exitUsage, err: fmt.Errorf(format, args...)}
}

// runAdmin is the role of the admin verbs.
func runAdmin(ctx context.Context, args []string) int {
	ctx, _, stop := withSignals(ctx)
	defer stop()
	asked := "" // the help that -h asks for
	root := adminCommand()
	prepareVerbs(root, func(c *ffcli.Command) string {
		asked = ffcli.DefaultUsageFunc(c)
		return ""
	})
	err := root.ParseAndRun(ctx, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(asked)
		return exitOK
	}
	return adminStatus(err)
}

func adminCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:        "ssm-ssh",
		ShortUsage:  "ssm-ssh [options] [user@]target [command]   (as ssh)\n  ssm-ssh verb [options]",
		ShortHelp:   "ssh to nodes behind AWS Systems Manager, by one session per host",
		LongHelp:    "A target is a managed node's id (i-…, mi-…), or any host of ssh_config(5).",
		Subcommands: []*ffcli.Command{sessionsCommand(), labCommand(), versionCommand(), helpCommand()},
		Exec:        func(context.Context, []string) error { return flag.ErrHelp },
	}
}

// prepareVerbs has the parser return its errors and say nothing by itself.
func prepareVerbs(c *ffcli.Command, usage func(*ffcli.Command) string) {
	if c.FlagSet == nil {
		c.FlagSet = newFlags(c.Name)
	}
	c.UsageFunc = usage
	for _, sub := range c.Subcommands {
		prepareVerbs(sub, usage)
	}
}

// newFlags returns an empty set of a verb's options.
func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return flags
}

// adminStatus says an admin verb's error and returns its exit code: 0, 1 failed, 2 usage, or the
// status that the verb chose.
func adminStatus(err error) int {
	if err == nil {
		return exitOK
	}
	status := exitUsage
	var chosen *verbError
	if errors.As(err, &chosen) {
		status = chosen.status
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "ssm-ssh: "+strings.TrimSuffix(text, "\n"))
	}
	return status
}

func versionCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:       "version",
		ShortUsage: "ssm-ssh version",
		ShortHelp:  "print the version",
		Exec: func(context.Context, []string) error {
			fmt.Println("ssm-ssh", version())
			return nil
		},
	}
}

// helpCommand leads to the help of a verb, or of all.
func helpCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:       "help",
		ShortUsage: "ssm-ssh help [verb…]",
		ShortHelp:  "say what a verb does",
		Exec: func(ctx context.Context, args []string) error {
			root := adminCommand()
			prepareVerbs(root, func(c *ffcli.Command) string { return "" })
			at := root
			for _, name := range args {
				next := verbOf(at, name)
				if next == nil {
					return usageErrorf("help: there is no verb %q", strings.Join(args, " "))
				}
				at = next
			}
			fmt.Print(ffcli.DefaultUsageFunc(at))
			return nil
		},
	}
}

func verbOf(c *ffcli.Command, name string) *ffcli.Command {
	for _, sub := range c.Subcommands {
		if sub.Name == name {
			return sub
		}
	}
	return nil
}

// version is the module's version, or the commit that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

// versionText answers -V. Tools read the first word's form (rsync, git and IDEs take it for
// OpenSSH's), so it names the version whose behaviour this program follows.
func versionText() string {
	return "OpenSSH_9.2 compatible, ssm-ssh " + version()
}
