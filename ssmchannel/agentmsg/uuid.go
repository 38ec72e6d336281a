package agentmsg

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// UUID is a message id in its normal byte order; only the wire swaps its halves.
type UUID [16]byte

// uuidTextLength is the length of the hyphenated form (RFC 9562, section 4).
const uuidTextLength = 36

var errUUID = errors.New("agentmsg: not a UUID")

// NewUUID returns a random UUID, version 4 (RFC 9562, section 5.4).
func NewUUID() UUID {
	var id UUID
	rand.Read(id[:]) // never fails: crypto/rand ends the program instead
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// AppendText appends the hyphenated lower-case form of id to dst.
func (id UUID) AppendText(dst []byte) ([]byte, error) {
	dst = hex.AppendEncode(dst, id[0:4])
	dst = hex.AppendEncode(append(dst, '-'), id[4:6])
	dst = hex.AppendEncode(append(dst, '-'), id[6:8])
	dst = hex.AppendEncode(append(dst, '-'), id[8:10])
	dst = hex.AppendEncode(append(dst, '-'), id[10:16])
	return dst, nil
}

// String returns the hyphenated lower-case form of id.
func (id UUID) String() string {
	b, _ := id.AppendText(make([]byte, 0, uuidTextLength))
	return string(b)
}

// UnmarshalText sets id from its hyphenated form, in either case.
func (id *UUID) UnmarshalText(text []byte) error {
	if len(text) != uuidTextLength ||
		text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return errUUID
	}
	var digits [32]byte
	n := 0
	for i, c := range text {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			continue
		}
		digits[n] = c
		n++
	}
	if _, err := hex.Decode(id[:], digits[:]); err != nil {
		return errUUID
	}
	return nil
}

// putWire writes id as the header has it: the less significant half first
// (plugin: message/messageparser.go, putUuid).
func (id *UUID) putWire(b []byte) {
	copy(b[0:8], id[8:16])
	copy(b[8:16], id[0:8])
}

// getWire is the reverse of putWire.
func (id *UUID) getWire(b []byte) {
	copy(id[8:16], b[0:8])
	copy(id[0:8], b[8:16])
}
