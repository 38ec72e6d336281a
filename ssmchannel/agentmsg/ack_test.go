package agentmsg

import (
	"math"
	"testing"
)

func TestAckRoundTrip(t *testing.T) {
	for _, sequence := range []int64{0, 7, 999, math.MaxInt64} {
		for _, sequential := range []bool{true, false} {
			want := Ack{Type: InputStreamData, ID: NewUUID(), Sequence: sequence, Sequential: sequential}
			payload := AppendAck(nil, &want)
			if len(payload) > AckLength {
				t.Errorf("%d bytes, AckLength is %d", len(payload), AckLength)
			}
			var got Ack
			if err := ParseAck(payload, &got); err != nil || got != want {
				t.Errorf("%s: %+v, %v", payload, got, err)
			}
		}
	}
}

func TestParseAck(t *testing.T) {
	tests := []struct {
		name     string
		payload  string
		sequence int64
		fast     bool
		fails    bool
	}{
		{"the peers' form", `{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"dd01e56b-ff48-483e-a508-b5f073f31b16","AcknowledgedMessageSequenceNumber":12,"IsSequentialMessage":true}`, 12, true, false},
		{"other order", `{"AcknowledgedMessageSequenceNumber":12,"AcknowledgedMessageType":"input_stream_data"}`, 12, false, false},
		{"white space", ` { "AcknowledgedMessageSequenceNumber" : 12 } `, 12, false, false},
		{"strange id", `{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"none","AcknowledgedMessageSequenceNumber":12,"IsSequentialMessage":true}`, 12, false, false},
		{"no number", `{"AcknowledgedMessageType":"input_stream_data"}`, 0, false, true},
		{"negative number", `{"AcknowledgedMessageSequenceNumber":-1}`, 0, false, true},
		{"number too large", `{"AcknowledgedMessageSequenceNumber":99999999999999999999}`, 0, false, true},
		{"not JSON", `acknowledged`, 0, false, true},
		{"empty", ``, 0, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var a Ack
			err := ParseAck([]byte(tt.payload), &a)
			if (err != nil) != tt.fails || a.Sequence != tt.sequence {
				t.Errorf("got %d, %v", a.Sequence, err)
			}
			if fast := parseAckFast([]byte(tt.payload), &a); fast != tt.fast {
				t.Errorf("read without JSON: %v", fast)
			}
		})
	}
}

func FuzzParseAck(f *testing.F) {
	v := findVector(f, "acknowledge")
	f.Add(v.payload(f))
	f.Add([]byte(`{"AcknowledgedMessageSequenceNumber":5}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		var fast, slow Ack
		if !parseAckFast(payload, &fast) {
			ParseAck(payload, &slow)
			return
		}
		if err := parseAckJSON(payload, &slow); err != nil || fast != slow {
			t.Fatalf("by hand %+v, by JSON %+v, %v", fast, slow, err)
		}
	})
}

func BenchmarkAckMessage(b *testing.B) {
	a := Ack{Type: OutputStreamData, ID: NewUUID(), Sequence: 12345, Sequential: true}
	m := Message{Type: Acknowledge, CreatedMillis: 1, Flags: AckFlags}
	payload, frame := make([]byte, 0, AckLength), make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		m.ID = NewUUID()
		payload = AppendAck(payload[:0], &a)
		m.Payload = payload
		frame = AppendMessage(frame[:0], &m)
	}
}

func BenchmarkParseAck(b *testing.B) {
	payload := AppendAck(nil, &Ack{Type: InputStreamData, ID: NewUUID(), Sequence: 12345, Sequential: true})
	b.ReportAllocs()
	var a Ack
	for b.Loop() {
		if ParseAck(payload, &a) != nil || a.Sequence != 12345 {
			b.Fatal("wrong")
		}
	}
}
