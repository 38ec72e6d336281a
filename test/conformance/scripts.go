package main

import (
	"fmt"
	"slices"
)

// script is one of the suite's, and what is expected of it.
type script struct {
	name  string
	set   string
	fails string // why it can't pass; "" where it must
}

// The sets. core contains quick, and all contains everything.
const (
	quick  = "quick"  // short ones of the client
	core   = "core"   // the rest of what is the client's to get right
	slow   = "slow"   // certificates, algorithms, time-outs
	server = "server" // sshd's own, with the client as their tool
	all    = "all"
)

// scripts are those that start the ssh they are given, in the order that a run of all has: the long
// ones of a set first, so that none is left alone at the end. With the stock ssh all of them pass.
// Those that pass with any program, since they never start it, aren't here: broken-pipe, scp,
// scp-uri and all that begin with sftp- but for those two.
var scripts = []script{
	{"banner", quick, ""},
	{"host-expand", quick, ""},
	{"localcommand", quick, ""},
	{"brokenkeys", quick, ""},
	{"cert-file", quick, ""},
	{"cfginclude", quick, ""},
	{"connect", quick, ""},
	{"connect-uri", quick, ""},
	{"envpass", quick, ""},
	{"exit-status-signal", quick, ""},
	{"knownhosts", quick, ""},
	{"multipubkey", quick, ""},
	{"portnum", quick, ""},
	{"proxy-connect", quick, ""},
	{"scp3", quick, ""},
	{"sftp-uri", quick, ""},
	{"sshcfgparse", quick, ""},
	{"stderr-after-eof", quick, ""},
	{"transfer", quick, ""},
	{"yes-head", quick, ""},

	{"multiplex", core, ""},
	{"percent", core, ""},
	{"exit-status", core, ""},
	{"keytype", core, ""},
	{"agent", core, ""},
	{"limit-keytype", core, ""},
	{"dynamic-forward", core, ""},
	{"forwarding", core, ""},
	{"login-timeout", core, ""},
	{"stderr-data", core, ""},
	{"hostkey-agent", core, ""},
	{"hostkey-rotate", core, ""},
	{"knownhosts-command", core, ""},

	{"rekey", slow, "reads the lines of OpenSSH's debug log"},
	{"cert-userkey", slow, ""},
	{"cert-hostkey", slow, ""},
	{"forward-control", slow, ""},
	{"integrity", slow, "reads the lines of OpenSSH's debug log"},
	{"try-ciphers", slow, ""},
	{"agent-restrict", slow, "an agent's restriction to a way over several hosts refuses what it should allow"},
	{"connection-timeout", slow, ""},
	{"kextype", slow, "-Q kex names mlkem768x25519-sha256, which the suite's sshd doesn't know"},
	{"channel-timeout", slow, ""},
	{"dhgex", slow, "reads the lines of OpenSSH's debug log"},
	{"connect-privsep", slow, ""},

	{"key-options", server, ""},
	{"reconfigure", server, ""},
	{"allow-deny-users", server, ""},
	{"sftp-chroot", server, ""},
	{"forcecommand", server, ""},
	{"principals-command", server, ""},
	{"keys-command", server, ""},
	{"authinfo", server, ""},
	{"reexec", server, ""},
	{"cfgmatch", server, ""},
}

// choose returns the scripts that the words name, each once: a script's name or a set's.
func choose(words []string) ([]script, error) {
	if len(words) == 0 {
		words = []string{core}
	}
	var chosen []script
	for _, word := range words {
		found := false
		for _, s := range scripts {
			if s.name != word && !within(s.set, word) {
				continue
			}
			found = true
			if !slices.Contains(chosen, s) {
				chosen = append(chosen, s)
			}
		}
		if !found {
			return nil, fmt.Errorf("%s is neither a script nor one of quick, core, slow, server, all", word)
		}
	}
	return chosen, nil
}

// within says whether a set is part of another.
func within(set, of string) bool {
	return set == of || of == all || of == core && set == quick
}
