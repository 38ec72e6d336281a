//go:build !unix

package ssmchannel

import "syscall"

// quiet does nothing where a socket has no such limit.
func quiet(syscall.RawConn, bool) {}
