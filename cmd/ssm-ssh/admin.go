package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/urfave/cli/v2"
)

// runAdmin is the role of the admin verbs.
func runAdmin(ctx context.Context, args []string) int {
	ctx, stop := withSignals(ctx)
	defer stop()
	app := &cli.App{
		Name:            "ssm-ssh",
		Usage:           "ssh to nodes behind AWS Systems Manager, by one session per host",
		UsageText:       "ssm-ssh [options] [user@]target [command]   (as ssh)\nssm-ssh verb [options]",
		Description:     "A target is a managed node's id (i-…, mi-…), or any host of ssh_config(5).",
		Version:         version(),
		HideVersion:     true,
		Commands:        []*cli.Command{sessionsCommand(), labCommand(), versionCommand()},
		HideHelpCommand: false,
		Writer:          os.Stdout,
		ErrWriter:       os.Stderr,
		ExitErrHandler:  func(*cli.Context, error) {},
	}
	return adminStatus(app.RunContext(ctx, append([]string{"ssm-ssh"}, args...)))
}

// adminStatus says an admin verb's error and returns its exit code: 0, 1 failed, 2 usage, or the
// status that the verb chose.
func adminStatus(err error) int {
	if err == nil {
		return exitOK
	}
	status := exitUsage // what the parser itself refuses is no ExitCoder
	if coder, ok := err.(cli.ExitCoder); ok {
		status = coder.ExitCode()
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "ssm-ssh: "+strings.TrimSuffix(text, "\n"))
	}
	return status
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Action: func(c *cli.Context) error {
			fmt.Fprintln(c.App.Writer, "ssm-ssh", version())
			return nil
		},
	}
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
