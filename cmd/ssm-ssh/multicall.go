package main

import (
	"context"
	"path/filepath"
	"slices"
)

// verbs is the closed list of admin verbs (decision 004). A verb is taken only when the program is
// called ssm-ssh and the verb is the first word: `ssm-ssh -- lab` and `ssm-ssh me@lab` reach a host
// of that name.
var verbs = []string{"sessions", "lab", "version", "help"}

// masterVerb starts the background master. It is spelled out so that ps explains itself.
const masterVerb = "internal-master"

// run is the program: it picks the role by the name it was called by and the first word.
func run(ctx context.Context, args []string, std stdio) int {
	name, rest := "ssm-ssh", []string(nil)
	if len(args) > 0 {
		name, rest = filepath.Base(args[0]), args[1:]
	}
	if name == "ssm-ssh" && len(rest) > 0 {
		switch {
		case rest[0] == masterVerb:
			return runMaster(ctx)
		case rest[0] == sessionVerb:
			return runBackgroundSession(ctx)
		case slices.Contains(verbs, rest[0]):
			return runAdmin(ctx, rest)
		}
	}
	return runSSH(ctx, name, rest, std)
}
