package agentmsg

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Message is one agent message.
type Message struct {
	// HeaderLength is 116 or 112. [AppendMessage] takes 0 as 116.
	HeaderLength uint32
	Type         MessageType
	// SchemaVersion is taken as 1 by [AppendMessage] when it is 0.
	SchemaVersion uint32
	// CreatedMillis counts milliseconds since the Unix epoch.
	CreatedMillis uint64
	// Sequence is the number of a stream message, 0 in all others.
	Sequence int64
	Flags    uint64
	ID       UUID
	// Digest is set by [Parse]; [AppendMessage] computes it.
	Digest      [sha256.Size]byte
	PayloadType PayloadType
	// Payload belongs to the parsed frame.
	Payload []byte
}

// Errors of [Parse].
var (
	ErrShort  = errors.New("agentmsg: message shorter than its header")
	ErrFormat = errors.New("agentmsg: malformed message")
)

// AppendMessage appends m in wire form to dst. The caller sees to it that the
// payload is not empty: no peer can serialize or read an empty one. A message
// type of more than 32 bytes is cut.
func AppendMessage(dst []byte, m *Message) []byte {
	headerLength := int(m.HeaderLength)
	if headerLength != ShortHeaderLength {
		headerLength = HeaderLength
	}
	var header [Overhead]byte
	binary.BigEndian.PutUint32(header[0:], uint32(headerLength))
	n := copy(header[typeOffset:schemaOffset], m.Type)
	for i := typeOffset + n; i < schemaOffset; i++ {
		header[i] = ' '
	}
	binary.BigEndian.PutUint32(header[schemaOffset:], max(m.SchemaVersion, SchemaVersion))
	binary.BigEndian.PutUint64(header[dateOffset:], m.CreatedMillis)
	binary.BigEndian.PutUint64(header[numberOffset:], uint64(m.Sequence))
	binary.BigEndian.PutUint64(header[flagsOffset:], m.Flags)
	m.ID.putWire(header[idOffset:])
	digest := sha256.Sum256(m.Payload)
	copy(header[digestOffset:], digest[:])
	if headerLength == HeaderLength {
		binary.BigEndian.PutUint32(header[payloadType:], uint32(m.PayloadType))
	}
	binary.BigEndian.PutUint32(header[headerLength:], uint32(len(m.Payload)))
	dst = append(dst, header[:headerLength+lengthLength]...)
	return append(dst, m.Payload...)
}

// Parse sets m from a frame. m.Payload aliases the frame. Parse checks the
// layout and the fields that both peers insist on; the digest is left to
// [Message.DigestOK], since the agent does not check it.
//
// Messages of type pause_publication and start_publication are accepted whatever
// follows their type, as the plugin does (message/messageparser.go, Validate):
// the service makes them without some of the fields.
func Parse(frame []byte, m *Message) error {
	*m = Message{}
	if len(frame) < schemaOffset {
		return ErrShort
	}
	m.HeaderLength = binary.BigEndian.Uint32(frame)
	name, ok := cutPadding(frame[typeOffset:schemaOffset])
	if !ok {
		return ErrFormat
	}
	m.Type = intern(name)
	if m.Type == PausePublication || m.Type == StartPublication {
		return nil
	}
	if m.HeaderLength < ShortHeaderLength {
		return ErrFormat
	}
	if uint64(m.HeaderLength)+lengthLength > uint64(len(frame)) {
		return ErrShort
	}
	m.parseHeader(frame)
	if m.SchemaVersion < 1 || m.CreatedMillis == 0 || m.Sequence < 0 {
		return ErrFormat
	}
	// The length is believed only where a peer has written it: readers of both
	// peers ignore the field and take the rest of the frame.
	length := binary.BigEndian.Uint32(frame[m.HeaderLength:])
	if m.HeaderLength == HeaderLength && uint64(length) != uint64(len(m.Payload)) {
		return ErrFormat
	}
	return nil
}

// parseHeader sets the fields behind the message type; the frame is long enough.
func (m *Message) parseHeader(frame []byte) {
	m.SchemaVersion = binary.BigEndian.Uint32(frame[schemaOffset:])
	m.CreatedMillis = binary.BigEndian.Uint64(frame[dateOffset:])
	m.Sequence = int64(binary.BigEndian.Uint64(frame[numberOffset:]))
	m.Flags = binary.BigEndian.Uint64(frame[flagsOffset:])
	m.ID.getWire(frame[idOffset:])
	copy(m.Digest[:], frame[digestOffset:])
	if m.HeaderLength >= HeaderLength {
		m.PayloadType = PayloadType(binary.BigEndian.Uint32(frame[payloadType:]))
	}
	m.Payload = frame[m.HeaderLength+lengthLength:]
}

// PutSequence changes the sequence number of a message in wire form. The digest
// covers the payload only, so a message can be made before its number is known.
func PutSequence(frame []byte, n int64) {
	binary.BigEndian.PutUint64(frame[numberOffset:], uint64(n))
}

// DigestOK reports whether the digest of a parsed message is that of its payload.
func (m *Message) DigestOK() bool {
	return m.Digest == sha256.Sum256(m.Payload)
}

// cutPadding strips a message type's padding as both peers do: NUL bytes, then
// white space (plugin: message/messageparser.go, getString). What remains must
// be a word of printable ASCII.
func cutPadding(b []byte) (name []byte, ok bool) {
	name = bytes.TrimSpace(bytes.Trim(b, "\x00"))
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return nil, false
		}
	}
	return name, len(name) > 0
}
