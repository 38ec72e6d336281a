package sshproxy

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/crypto/ssh"
)

// clearPacket puts a payload in a packet as it is before encryption (RFC 4253 section 6).
func clearPacket(payload []byte) []byte {
	const padding = 4
	p := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	p = append(append(p, padding), payload...)
	return append(p, make([]byte, padding)...)
}

func TestKexReplyIsFound(t *testing.T) {
	version, kexInit := []byte("A line before\r\nSSH-2.0-x\r\n"), clearPacket([]byte{20, 1, 2, 3})
	group := clearPacket(ssh.Marshal(struct {
		P, G []byte `sshtype:"31"`
	}{P: []byte("p"), G: []byte("g")}))
	reply31 := ssh.Marshal(kexReply{[]byte("key"), []byte("public"), []byte("signature")})
	reply33 := bytes.Clone(reply31)
	reply33[0] = msgGroupExchangeEnd
	newKeys := clearPacket([]byte{msgNewKeys})
	sealed := []byte("\x00\xff what follows is encrypted")
	tests := []struct {
		name   string
		stream [][]byte
		found  bool
	}{
		{"one answer", [][]byte{version, kexInit, clearPacket(reply31), newKeys, sealed}, true},
		{"group exchange", [][]byte{version, kexInit, group, clearPacket(reply33), newKeys, sealed}, true},
		{"not over yet", [][]byte{version, kexInit, clearPacket(reply31)}, false},
		{"none", [][]byte{version, kexInit, newKeys, clearPacket(reply31), newKeys}, false},
		{"not the form", [][]byte{version, kexInit, clearPacket(reply31[:len(reply31)-1]), newKeys}, false},
		{"no payload", [][]byte{version, {0, 0, 0, 5, 4, 0, 0, 0, 0}, clearPacket(reply31), newKeys}, false},
		{"too long", [][]byte{version, {1, 0, 0, 0, 4}, clearPacket(reply31), newKeys}, false},
		{"endless", [][]byte{version, bytes.Repeat(clearPacket(make([]byte, 1000)), 1100), clearPacket(reply31), newKeys}, false},
	}
	for _, tt := range tests {
		stream := bytes.Join(tt.stream, nil)
		for _, size := range []int{1, 7, len(stream)} {
			var k kexReader
			for rest := stream; len(rest) > 0; {
				n := min(size, len(rest))
				k.observe(rest[:n])
				rest = rest[n:]
			}
			reply := k.reply.Load()
			if (reply != nil) != tt.found {
				t.Errorf("%s by %d bytes: got %v", tt.name, size, reply)
			}
			if reply != nil && (string(reply.HostKey) != "key" || string(reply.Signature) != "signature") {
				t.Errorf("%s: got %q", tt.name, *reply)
			}
		}
	}
}

// FuzzKexReader has the same bytes mean the same however they are cut, and little memory held.
func FuzzKexReader(f *testing.F) {
	reply := clearPacket(ssh.Marshal(kexReply{[]byte("key"), []byte("public"), []byte("signature")}))
	f.Add([]byte("SSH-2.0-x\r\n"), 3)
	f.Add(bytes.Join([][]byte{[]byte("x\nSSH-2.0-x\r\n"), clearPacket([]byte{20}), reply, clearPacket([]byte{msgNewKeys})}, nil), 5)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		var whole, parts kexReader
		whole.observe(stream)
		cut = min(max(cut, 0), len(stream))
		parts.observe(stream[:cut])
		parts.observe(stream[cut:])
		a, b := whole.reply.Load(), parts.reply.Load()
		if (a == nil) != (b == nil) || a != nil && !bytes.Equal(ssh.Marshal(a), ssh.Marshal(b)) {
			t.Errorf("got %v and %v", a, b)
		}
		if len(whole.pending) > max(len(stream), maxClearPacket+4) {
			t.Errorf("holds %d bytes", len(whole.pending))
		}
	})
}
