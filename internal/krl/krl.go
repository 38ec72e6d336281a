// Package krl reads OpenSSH's key revocation lists, as ssh-keygen -k makes them, and says whether a key or a
// certificate is on one. Its source is PROTOCOL.krl; where that leaves a choice, krl.c.
//
//	header    magic, format, version, date, flags, reserved, comment
//	section   byte type, string data: certificates of an authority, keys, or hashes of keys
//	signature byte 4, string key, string signature over everything before it; only at the end
//
// It does no I/O and logs nothing.
package krl

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"golang.org/x/crypto/ssh"
)

// ErrNoList says that the bytes do not begin as a key revocation list.
var ErrNoList = errors.New("krl: not a key revocation list")

// errFormat stands for everything that OpenSSH calls an invalid format.
var errFormat = errors.New("krl: invalid format")

const (
	magic         = "SSHKRL\n\x00"
	formatVersion = 1

	// Sections (PROTOCOL.krl, 1).
	sectionCertificates = 1
	sectionKeys         = 2
	sectionSHA1         = 3
	sectionSignature    = 4
	sectionSHA256       = 5

	// Sections of a section of certificates (PROTOCOL.krl, 2).
	certSerials     = 0x20
	certSerialRange = 0x21
	certSerialBits  = 0x22
	certKeyIDs      = 0x23

	// maxBitmap is the longest number that OpenSSH reads, in bytes (sshbuf.h, SSHBUF_MAX_BIGNUM).
	maxBitmap = 16384 / 8
)

// List is a key revocation list. It is not changed once it is read.
type List struct {
	keys    map[string]struct{} // public keys in wire format
	sha1s   map[string]struct{} // their hashes
	sha256s map[string]struct{}
	issued  map[string]*issued // certificates by their authority's key in wire format; "" is any
}

// issued is what is revoked of an authority's certificates.
type issued struct {
	serials []span
	bits    []bitmap
	keyIDs  map[string]struct{}
}

// span is a range of serial numbers, both ends included.
type span struct{ first, last uint64 }

// bitmap revokes serial number first+n where bit n of a big-endian number is set.
type bitmap struct {
	first uint64
	bits  []byte
}

// Parse reads a list. It keeps none of data. Signatures must be right where there are any; whose they are is
// the caller's trust in where the list came from. The error is ErrNoList where it isn't a list at all.
func Parse(data []byte) (*List, error) {
	rest, found := bytes.CutPrefix(data, []byte(magic))
	if !found {
		return nil, ErrNoList
	}
	r := reader{rest: rest}
	format := r.uint32()
	r.take(3 * 8) // version, date, flags
	r.str()       // reserved
	r.text()      // comment
	if r.bad || format != formatVersion {
		return nil, errFormat
	}
	l := &List{keys: map[string]struct{}{}, sha1s: map[string]struct{}{}, sha256s: map[string]struct{}{}, issued: map[string]*issued{}}
	signers, err := l.sections(data, &r)
	if err != nil {
		return nil, err
	}
	trusted := len(signers) == 0
	for _, key := range signers {
		trusted = trusted || !l.Revokes(key)
	}
	if !trusted {
		return nil, errors.New("krl: all keys used to sign the list are revoked")
	}
	return l, nil
}

// sections reads to the end, and returns the keys that have signed.
func (l *List) sections(data []byte, r *reader) (signers []ssh.PublicKey, err error) {
	for len(r.rest) > 0 {
		kind, section := r.byte(), r.str()
		if r.bad || kind != sectionSignature && len(signers) > 0 {
			return nil, errFormat
		}
		if kind != sectionSignature {
			if !l.section(kind, section) {
				return nil, errFormat
			}
			continue
		}
		signed := data[:len(data)-len(r.rest)]
		key, ok := verifySigner(section, signed, r.str())
		if r.bad || !ok {
			return nil, errFormat
		}
		for _, other := range signers {
			if bytes.Equal(other.Marshal(), key.Marshal()) {
				return nil, errFormat
			}
		}
		signers = append(signers, key)
	}
	return signers, nil
}

func verifySigner(blob, signed, signature []byte) (ssh.PublicKey, bool) {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return nil, false
	}
	var sig ssh.Signature
	if ssh.Unmarshal(signature, &sig) != nil || key.Verify(signed, &sig) != nil {
		return nil, false
	}
	return key, true
}

func (l *List) section(kind byte, section []byte) bool {
	switch kind {
	case sectionCertificates:
		return l.certificates(section)
	case sectionKeys:
		return addAll(l.keys, section, 0)
	case sectionSHA1:
		return addAll(l.sha1s, section, sha1.Size)
	case sectionSHA256:
		return addAll(l.sha256s, section, sha256.Size)
	}
	return false
}

// addAll adds a section's strings to a set. A size other than 0 is that of each.
func addAll(set map[string]struct{}, section []byte, size int) bool {
	r := reader{rest: section}
	for len(r.rest) > 0 {
		s := r.str()
		if r.bad || size != 0 && len(s) != size {
			return false
		}
		set[string(s)] = struct{}{}
	}
	return true
}

func (l *List) certificates(section []byte) bool {
	r := reader{rest: section}
	authority := r.str()
	r.str() // reserved
	if r.bad {
		return false
	}
	if len(authority) > 0 {
		if _, err := ssh.ParsePublicKey(authority); err != nil {
			return false
		}
	}
	of := l.issued[string(authority)]
	if of == nil {
		of = &issued{keyIDs: map[string]struct{}{}}
		l.issued[string(authority)] = of
	}
	for len(r.rest) > 0 {
		kind, data := r.byte(), r.str()
		if r.bad || !of.add(kind, data) {
			return false
		}
	}
	return true
}

// add reads one section about an authority's certificates. Serial number 0 is the one of certificates
// without a number, and can't be revoked (krl.c, ssh_krl_revoke_cert_by_serial_range).
func (of *issued) add(kind byte, data []byte) bool {
	r := reader{rest: data}
	switch kind {
	case certSerials:
		for len(r.rest) > 0 {
			serial := r.uint64()
			if serial == 0 {
				return false
			}
			of.serials = append(of.serials, span{serial, serial})
		}
	case certSerialRange:
		s := span{r.uint64(), r.uint64()}
		if s.first == 0 || s.first > s.last {
			return false
		}
		of.serials = append(of.serials, s)
	case certSerialBits:
		b := bitmap{r.uint64(), bytes.Clone(r.number())}
		if b.wraps() || b.first == 0 && b.has(0) {
			return false
		}
		of.bits = append(of.bits, b)
	case certKeyIDs:
		for len(r.rest) > 0 {
			of.keyIDs[r.text()] = struct{}{}
		}
	default:
		return false
	}
	return !r.bad && len(r.rest) == 0
}

// wraps tells whether the bitmap goes beyond the highest serial number. Its first byte is not 0.
func (b *bitmap) wraps() bool {
	if len(b.bits) == 0 {
		return false
	}
	high := uint64(len(b.bits)-1) * 8
	for top := b.bits[0] >> 1; top != 0; top >>= 1 {
		high++
	}
	return b.first+high < b.first
}

func (b *bitmap) has(serial uint64) bool {
	n := serial - b.first
	if serial < b.first || n/8 >= uint64(len(b.bits)) {
		return false
	}
	return b.bits[uint64(len(b.bits))-1-n/8]&(1<<(n%8)) != 0
}

// Revokes reports whether the key is on the list: itself, or of a certificate its key, its serial number, its
// key id or its authority's key.
func (l *List) Revokes(key ssh.PublicKey) bool {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return l.revokesPlain(key)
	}
	return l.revokesPlain(cert.Key) || l.revokesPlain(cert.SignatureKey) ||
		l.issued[string(cert.SignatureKey.Marshal())].has(cert) || l.issued[""].has(cert)
}

func (l *List) revokesPlain(key ssh.PublicKey) bool {
	blob := key.Marshal()
	sum1, sum256 := sha1.Sum(blob), sha256.Sum256(blob)
	_, byKey := l.keys[string(blob)]
	_, bySHA1 := l.sha1s[string(sum1[:])]
	_, bySHA256 := l.sha256s[string(sum256[:])]
	return byKey || bySHA1 || bySHA256
}

func (of *issued) has(cert *ssh.Certificate) bool {
	if of == nil {
		return false
	}
	if _, ok := of.keyIDs[cert.KeyId]; ok {
		return true
	}
	if cert.Serial == 0 {
		return false
	}
	for _, s := range of.serials {
		if s.first <= cert.Serial && cert.Serial <= s.last {
			return true
		}
	}
	for i := range of.bits {
		if of.bits[i].has(cert.Serial) {
			return true
		}
	}
	return false
}

// reader takes the types of RFC 4251 section 5 off a byte slice. After the first thing that isn't there it is
// bad and gives zero values.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) str() []byte { return r.take(uint64(r.uint32())) }

// text is a string of C: a NUL may only end it (sshbuf-getput-basic.c, sshbuf_get_cstring).
func (r *reader) text() string {
	s := bytes.TrimSuffix(r.str(), []byte{0})
	if bytes.IndexByte(s, 0) >= 0 {
		r.bad = true
	}
	return string(s)
}

// number is a non-negative mpint without its leading zeros.
func (r *reader) number() []byte {
	s := r.str()
	if len(s) > 0 && s[0]&0x80 != 0 {
		r.bad = true
	}
	s = bytes.TrimLeft(s, "\x00")
	if len(s) > maxBitmap {
		r.bad = true
	}
	return s
}
