//go:build tools

// Package plugin pins the official session-manager-plugin, the foreign client that the lab is
// tested with. It is a module of its own: nothing of it is linked into ssm-ssh.
//
//	go build -C test/plugin -o DIR/session-manager-plugin \
//		github.com/aws/session-manager-plugin/src/sessionmanagerplugin-main
//
// The pins in go.mod are what it builds with: its own go.mod names no version of twinj/uuid that
// still has the API it uses.
package plugin

import _ "github.com/aws/session-manager-plugin/src/sessionmanagerplugin-main"
