//go:build !linux

package lab

import "errors"

type ipc struct{}

// openIPC is about inotify, which only Linux has.
func openIPC(string, string) (*ipc, error) { return nil, errors.ErrUnsupported }

func (*ipc) close() error { return nil }
