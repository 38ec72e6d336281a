package main

import (
	"encoding/base32"
	"encoding/binary"
	"path/filepath"
	"strconv"
	"time"

	"ssm-ssh/internal/sshopt"
)

// creation says who becomes the master when there is none.
type creation int

const (
	createNone       creation = iota
	createBackground          // a process of its own, which outlives this call
	createForeground          // this call's own connection serves others while it lasts
)

// implicitPersist is how long a master that nobody asked for waits for the next client.
const implicitPersist = 60 * time.Second

// sharing is how a call may share a connection: ssh's ControlMaster, ControlPath and
// ControlPersist, and for managed nodes our own default (docs/decisions/003).
type sharing struct {
	path     string // absolute; "" shares nothing
	ride     bool   // be a mux client of a master that lives there
	create   creation
	persist  time.Duration // <0: for ever
	implicit bool
	identity string // of the node, told and asked in HELLO; "" for other hosts
}

// sharingOf reads the options; name is what the program was called.
func sharingOf(name string, opts *sshopt.Options) (sharing, error) {
	node, isNode := nodeOf(opts)
	if opts.ControlPath != "" {
		s, err := explicitSharing(opts, isNode)
		if isNode {
			s.identity = identityOf(opts, node).digest()
		}
		return s, err
	}
	if !isNode || name == "ssh" || !opts.SSMMultiplex || opts.ConfigFile == "none" || opts.IsSet("controlpath") {
		return sharing{}, nil
	}
	dir, err := runtimeDir()
	if err != nil {
		return sharing{}, err
	}
	id := identityOf(opts, node)
	s := sharing{path: implicitKeyOf(opts, id).controlPath(dir), ride: true, create: createBackground,
		persist: implicitPersist, implicit: true, identity: id.digest()}
	switch {
	case opts.ControlPersist.Set:
		s.persist = persistTime(opts.ControlPersist)
	case opts.IsSet("controlpersist"): // to no: nothing stays behind
		s.create, s.persist = createForeground, 0
	}
	return s, nil
}

// explicitSharing is ssh's own meaning of the three keywords. Only a node's master is made without
// being asked for here too, when ControlMaster is left unset, and then outlives its maker.
func explicitSharing(opts *sshopt.Options, isNode bool) (sharing, error) {
	path, err := filepath.Abs(opts.ControlPath)
	if err != nil {
		return sharing{}, err
	}
	s := sharing{path: path, create: createForeground}
	if opts.ControlPersist.Set {
		s.create, s.persist = createBackground, persistTime(opts.ControlPersist)
	}
	switch opts.ControlMaster {
	case sshopt.ControlMasterAuto, sshopt.ControlMasterAutoAsk:
		s.ride = true
	case sshopt.ControlMasterNo:
		s.ride = true
		switch {
		case !isNode || opts.IsSet("controlmaster") || !opts.SSMMultiplex:
			s.create = createNone
		case !opts.IsSet("controlpersist"):
			s.create, s.persist = createBackground, implicitPersist
		}
	}
	return s, nil
}

func persistTime(p sshopt.ControlPersist) time.Duration {
	if p.Forever {
		return -1
	}
	return p.Timeout
}

// accountOf returns what an access key id tells of its account. Its sixteen characters after the
// prefix are base32, and bits 1 to 40 of that are the account's number; so keys of one account
// agree when they rotate. An id of another form stands for itself.
func accountOf(accessKeyID string) string {
	if len(accessKeyID) != 20 {
		return accessKeyID
	}
	raw, err := base32.StdEncoding.DecodeString(accessKeyID[4:])
	if err != nil {
		return accessKeyID
	}
	const mask = 1<<40 - 1
	bits := binary.BigEndian.Uint64(raw)
	return strconv.FormatUint(bits>>23&mask, 10)
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
