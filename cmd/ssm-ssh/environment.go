package main

import (
	"os"
	"slices"
	"strings"
	"sync"
)

// awsPrefix begins the names of the SDK's variables.
const awsPrefix = "AWS_"

// awsEnvironment picks the variables that say who we are to AWS. A client hands them to the master
// (never by argument, file or log), since the credentials that a master began with expire while it
// lives, and the newest client has the newest.
func awsEnvironment(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(pair string) bool { return !strings.HasPrefix(pair, awsPrefix) })
}

// adopter takes over clients' environments, one at a time.
type adopter struct{ mu sync.Mutex }

// adopt makes a client's variables this process's. The SDK reads them when credentials
// have to be renewed; the identity of the node is agreed on before, so they lead nowhere else.
func (a *adopter) adopt(env []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		given := func(other string) bool { return strings.HasPrefix(other, name+"=") }
		if strings.HasPrefix(name, awsPrefix) && !slices.ContainsFunc(env, given) {
			os.Unsetenv(name) //nolint:errcheck // fails for names without a value only
		}
	}
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok && strings.HasPrefix(name, awsPrefix) {
			os.Setenv(name, value) //nolint:errcheck // as above
		}
	}
}

// hasUTF8 tells whether the user's locale is one of UTF-8 (setlocale(3), LC_CTYPE).
func hasUTF8(getenv func(string) string) bool {
	locale := strings.ToLower(firstOf(getenv("LC_ALL"), getenv("LC_CTYPE"), getenv("LANG")))
	return strings.HasSuffix(locale, "utf-8") || strings.HasSuffix(locale, "utf8")
}

// userShell is the shell that runs the user's commands.
func userShell() string { return firstOf(os.Getenv("SHELL"), "/bin/sh") }
