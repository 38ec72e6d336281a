package agentmsg

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"
)

// vector is one entry of testdata/vectors.json: a message made by the plugin's
// own serializer.
type vector struct {
	Name           string          `json:"name"`
	HeaderLength   uint32          `json:"header_length"`
	MessageType    MessageType     `json:"message_type"`
	SchemaVersion  uint32          `json:"schema_version"`
	CreatedMillis  uint64          `json:"created_date_ms"`
	SequenceNumber int64           `json:"sequence_number"`
	Flags          uint64          `json:"flags"`
	MessageID      string          `json:"message_id"`
	DigestHex      string          `json:"payload_digest_hex"`
	PayloadType    PayloadType     `json:"payload_type"`
	PayloadHex     string          `json:"payload_hex"`
	PayloadJSON    json.RawMessage `json:"payload_json"`
	TotalLength    int             `json:"total_length"`
	Hex            string          `json:"hex"`
}

func (v *vector) frame(tb testing.TB) []byte   { return unhex(tb, v.Hex) }
func (v *vector) payload(tb testing.TB) []byte { return unhex(tb, v.PayloadHex) }

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func loadVectors(tb testing.TB) []vector {
	tb.Helper()
	raw, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		tb.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(raw, &file); err != nil {
		tb.Fatal(err)
	}
	if len(file.Vectors) < 8 {
		tb.Fatalf("only %d vectors", len(file.Vectors))
	}
	return file.Vectors
}

func findVector(tb testing.TB, name string) vector {
	tb.Helper()
	for _, v := range loadVectors(tb) {
		if v.Name == name {
			return v
		}
	}
	tb.Fatalf("no vector %q", name)
	return vector{}
}

func TestVectorsParse(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			frame := v.frame(t)
			if len(frame) != v.TotalLength {
				t.Fatalf("vector has %d bytes, says %d", len(frame), v.TotalLength)
			}
			var m Message
			if err := Parse(frame, &m); err != nil {
				t.Fatal(err)
			}
			checkField(t, "header length", m.HeaderLength, v.HeaderLength)
			checkField(t, "type", m.Type, v.MessageType)
			checkField(t, "schema version", m.SchemaVersion, v.SchemaVersion)
			checkField(t, "created", m.CreatedMillis, v.CreatedMillis)
			checkField(t, "sequence", m.Sequence, v.SequenceNumber)
			checkField(t, "flags", m.Flags, v.Flags)
			checkField(t, "id", m.ID.String(), v.MessageID)
			checkField(t, "digest", hex.EncodeToString(m.Digest[:]), v.DigestHex)
			checkField(t, "payload type", m.PayloadType, v.PayloadType)
			checkField(t, "payload", hex.EncodeToString(m.Payload), v.PayloadHex)
			checkField(t, "digest ok", m.DigestOK(), true)
		})
	}
}

func TestVectorsAppend(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			m := Message{
				HeaderLength:  v.HeaderLength,
				Type:          v.MessageType,
				CreatedMillis: v.CreatedMillis,
				Sequence:      v.SequenceNumber,
				Flags:         v.Flags,
				PayloadType:   v.PayloadType,
				Payload:       v.payload(t),
			}
			if err := m.ID.UnmarshalText([]byte(v.MessageID)); err != nil {
				t.Fatal(err)
			}
			checkField(t, "frame", hex.EncodeToString(AppendMessage(nil, &m)), v.Hex)
		})
	}
}

// TestVectorPayloads builds each payload from our types and compares bytes.
func TestVectorPayloads(t *testing.T) {
	tests := []struct {
		name    string
		payload func(t *testing.T) []byte
	}{
		{"acknowledge", func(t *testing.T) []byte {
			a := Ack{Type: OutputStreamData, Sequence: 7, Sequential: true}
			if err := a.ID.UnmarshalText([]byte("dd01e56b-ff48-483e-a508-b5f073f31b16")); err != nil {
				t.Fatal(err)
			}
			return AppendAck(nil, &a)
		}},
		{"input_stream_data_handshake_response", func(t *testing.T) []byte {
			return marshal(t, HandshakeResponse{
				ClientVersion: "1.3.0.0",
				ProcessedClientActions: []ProcessedAction{
					{ActionType: SessionTypeAction, ActionStatus: ActionSuccess},
				},
			})
		}},
		{"input_stream_data_flag_terminate", func(*testing.T) []byte {
			return AppendFlag(nil, TerminateSession)
		}},
		{"input_stream_data_size", func(t *testing.T) []byte {
			return marshal(t, TerminalSize{Cols: 80, Rows: 24})
		}},
		{"output_stream_data_handshake_request", func(t *testing.T) []byte {
			parameters := marshal(t, SessionTypeParameters{
				SessionType: PortSession,
				Properties:  &PortProperties{PortNumber: "22"},
			})
			return marshal(t, HandshakeRequest{
				AgentVersion: "3.3.0.0",
				RequestedClientActions: []RequestedAction{
					{ActionType: SessionTypeAction, ActionParameters: parameters},
				},
			})
		}},
		{"output_stream_data_handshake_complete", func(t *testing.T) []byte {
			return marshal(t, HandshakeComplete{HandshakeTimeToComplete: 123456789 * time.Nanosecond})
		}},
		{"channel_closed_short_header", func(t *testing.T) []byte {
			return marshal(t, ChannelClosedPayload{
				MessageID:     "6ba7b813-9dad-11d1-80b4-00c04fd430c8",
				CreatedDate:   "2023-11-14T22:13:20.130Z",
				DestinationID: "00112233-4455-6677-8899-aabbccddeeff",
				SessionID:     "user-0123456789abcdef0",
				MessageType:   ChannelClosed,
				SchemaVersion: 1,
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := findVector(t, tt.name)
			checkField(t, "payload", string(tt.payload(t)), string(v.payload(t)))
		})
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := MarshalPayload(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func checkField[T comparable](t *testing.T, name string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", name, got, want)
	}
}
