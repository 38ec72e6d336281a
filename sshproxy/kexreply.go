package sshproxy

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// Message numbers of a first key exchange (RFC 4250 section 4.1.2; RFC 4253 section 8, RFC 5656 section 7.1,
// RFC 4419 section 5).
const (
	msgNewKeys          = 21
	msgExchangeReply    = 31 // in a group exchange this is the group, and 33 the reply
	msgGroupExchangeEnd = 33
)

// Limits of what may come before NEWKEYS; who sends more has no use for an agent.
const (
	maxClearPacket = 256 * 1024 // PACKET_MAX_SIZE (packet.c)
	maxClearBytes  = 1 << 20
)

// kexReply is the server's answer in the first key exchange: its proof that the host key is its own. All
// exchanges have the same three fields, whatever the middle one means.
type kexReply struct {
	HostKey   []byte `sshtype:"31|33"`
	Public    []byte
	Signature []byte
}

// kexReader finds the kexReply in what a server sends before it encrypts: x/crypto/ssh keeps the signature
// to itself, and an agent wants it (sessionBind). What it can't read it passes over, since the SSH library
// has the say on what is valid.
type kexReader struct {
	// Owned by the one who reads the connection.
	pending []byte // bytes not yet understood
	seen    int
	version bool      // the version line is over
	last    *kexReply // the newest message that may be it
	done    bool      // nothing more is to be learnt

	reply atomic.Pointer[kexReply] // set when the exchange is over
}

// observe takes the next bytes from the server.
func (k *kexReader) observe(p []byte) {
	if k.done {
		return
	}
	p = p[:min(len(p), maxClearBytes-k.seen)]
	k.seen += len(p)
	k.pending = append(k.pending, p...)
	for !k.done && k.next() {
	}
	if k.done || k.seen == maxClearBytes {
		k.done, k.pending, k.last = true, nil, nil
	}
}

// next takes one line or packet from pending; false means that it is not all there yet.
func (k *kexReader) next() bool {
	if !k.version {
		line, rest, found := bytes.Cut(k.pending, []byte("\n"))
		if found {
			// Other lines may come first (RFC 4253 section 4.2).
			k.version, k.pending = bytes.HasPrefix(line, []byte("SSH-")), rest
		}
		return found
	}
	// uint32 length, byte padding length, payload, padding (RFC 4253 section 6).
	if len(k.pending) < 5 {
		return false
	}
	length, padding := binary.BigEndian.Uint32(k.pending), uint32(k.pending[4])
	if length > maxClearPacket || padding+2 > length {
		k.done = true
		return false
	}
	if uint32(len(k.pending)-4) < length {
		return false
	}
	k.packet(k.pending[5 : 4+length-padding])
	k.pending = k.pending[4+length:]
	return true
}

// packet looks at the payload of one packet, which has a byte at least.
func (k *kexReader) packet(payload []byte) {
	switch payload[0] {
	case msgExchangeReply, msgGroupExchangeEnd:
		reply := new(kexReply)
		if err := ssh.Unmarshal(bytes.Clone(payload), reply); err == nil {
			k.last = reply
		}
	case msgNewKeys:
		k.reply.Store(k.last)
		k.done = true
	}
}
