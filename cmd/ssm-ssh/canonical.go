package main

import (
	"context"
	"net"
	"time"
)

// canonicalLimit bounds one look-up for CanonicalizeHostname, as the resolver's own timeouts and attempts do
// for the C library's: 5 s, twice.
const canonicalLimit = 10 * time.Second

// canonicalName looks a name up for CanonicalizeHostname; ok is false when it isn't found. The name comes
// back as the last of the aliases that lead to its address has it.
func canonicalName(name string) (canonical string, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), canonicalLimit)
	defer cancel()
	canonical, err := net.DefaultResolver.LookupCNAME(ctx, name)
	return canonical, err == nil
}
