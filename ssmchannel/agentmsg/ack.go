package agentmsg

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// Ack is the payload of an acknowledgement. Both peers match it by Sequence
// alone (plugin: datachannel/streaming.go; agent:
// session/datachannel/datachannel.go, ProcessAcknowledgedMessage).
type Ack struct {
	Type       MessageType // of the acknowledged message
	ID         UUID        // of the acknowledged message
	Sequence   int64       // of the acknowledged message
	Sequential bool        // both peers send true
}

// The acknowledgement's keys in the order that both peers send (plugin:
// message/contracts.go, AcknowledgeContent).
const (
	ackTypeKey     = `{"AcknowledgedMessageType":"`
	ackIDKey       = `","AcknowledgedMessageId":"`
	ackSequenceKey = `","AcknowledgedMessageSequenceNumber":`
	ackOrderKey    = `,"IsSequentialMessage":`
	ackTrue        = `true}`
	ackFalse       = `false}`
)

// AckLength is more than the length of any acknowledgement's payload for the
// message types of this package.
const AckLength = 200

// AppendAck appends the payload of an acknowledgement to dst. a.Type must be one
// of the constants of this package: it is not escaped.
func AppendAck(dst []byte, a *Ack) []byte {
	dst = append(append(dst, ackTypeKey...), a.Type...)
	dst, _ = a.ID.AppendText(append(dst, ackIDKey...))
	dst = strconv.AppendInt(append(dst, ackSequenceKey...), a.Sequence, 10)
	dst = append(dst, ackOrderKey...)
	if a.Sequential {
		return append(dst, ackTrue...)
	}
	return append(dst, ackFalse...)
}

// ParseAck sets a from the payload of an acknowledgement. The form that both
// peers send costs no allocation; any other JSON is parsed as such.
func ParseAck(payload []byte, a *Ack) error {
	if parseAckFast(payload, a) {
		return nil
	}
	return parseAckJSON(payload, a)
}

// parseAckFast reads exactly what AppendAck writes and reports whether it did.
func parseAckFast(b []byte, a *Ack) bool {
	b, ok := bytes.CutPrefix(b, []byte(ackTypeKey))
	if !ok {
		return false
	}
	end := bytes.IndexByte(b, '"')
	if end < 0 || bytes.IndexByte(b[:end], '\\') >= 0 {
		return false
	}
	typ := b[:end]
	b, ok = bytes.CutPrefix(b[end:], []byte(ackIDKey))
	if !ok || len(b) < uuidTextLength {
		return false
	}
	var id UUID
	if id.UnmarshalText(b[:uuidTextLength]) != nil {
		return false
	}
	b, ok = bytes.CutPrefix(b[uuidTextLength:], []byte(ackSequenceKey))
	if !ok {
		return false
	}
	sequence, b, ok := cutDigits(b)
	if !ok {
		return false
	}
	b, ok = bytes.CutPrefix(b, []byte(ackOrderKey))
	if !ok || string(b) != ackTrue && string(b) != ackFalse {
		return false
	}
	known := intern(typ)
	if known != InputStreamData && known != OutputStreamData {
		return false
	}
	*a = Ack{Type: known, ID: id, Sequence: sequence, Sequential: string(b) == ackTrue}
	return true
}

// cutDigits reads a JSON integer without sign of at most 18 digits, which no
// int64 overflows.
func cutDigits(b []byte) (n int64, rest []byte, ok bool) {
	i := 0
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		if i == 18 {
			return 0, nil, false
		}
		n = n*10 + int64(b[i]-'0')
		i++
	}
	leadingZero := i > 1 && b[0] == '0'
	return n, b[i:], i > 0 && !leadingZero
}

func parseAckJSON(payload []byte, a *Ack) error {
	var v struct {
		AcknowledgedMessageType           MessageType
		AcknowledgedMessageId             string
		AcknowledgedMessageSequenceNumber *int64
		IsSequentialMessage               bool
	}
	if err := json.Unmarshal(payload, &v); err != nil {
		return fmt.Errorf("agentmsg: acknowledgement: %w", err)
	}
	if v.AcknowledgedMessageSequenceNumber == nil || *v.AcknowledgedMessageSequenceNumber < 0 {
		return fmt.Errorf("agentmsg: acknowledgement: %w", ErrFormat)
	}
	*a = Ack{
		Type:       v.AcknowledgedMessageType,
		Sequence:   *v.AcknowledgedMessageSequenceNumber,
		Sequential: v.IsSequentialMessage,
	}
	// The id serves nobody: a strange one is no reason to lose the acknowledgement.
	if a.ID.UnmarshalText([]byte(v.AcknowledgedMessageId)) != nil {
		a.ID = UUID{}
	}
	return nil
}
