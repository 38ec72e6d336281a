package agentmsg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

func TestParseRefuses(t *testing.T) {
	good := AppendMessage(nil, &Message{
		Type: InputStreamData, CreatedMillis: 1, Sequence: 3, ID: NewUUID(), PayloadType: Output, Payload: []byte("x"),
	})
	edit := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	tests := []struct {
		name  string
		frame []byte
		want  error
	}{
		{"empty frame", nil, ErrShort},
		{"type cut off", good[:35], ErrShort},
		{"header cut off", good[:119], ErrShort},
		{"header length zero", edit(func(b []byte) []byte { clear(b[:4]); return b }), ErrFormat},
		{"header length inside the header", edit(func(b []byte) []byte { b[3] = 100; return b }), ErrFormat},
		{"header length beyond the frame", edit(func(b []byte) []byte { b[2] = 9; return b }), ErrShort},
		{"header length of four gigabytes", edit(func(b []byte) []byte { copy(b, "\xff\xff\xff\xff"); return b }), ErrShort},
		{"no type", edit(func(b []byte) []byte { copy(b[4:36], strings.Repeat(" ", 32)); return b }), ErrFormat},
		{"no created date", edit(func(b []byte) []byte { clear(b[40:48]); return b }), ErrFormat},
		{"no schema version", edit(func(b []byte) []byte { clear(b[36:40]); return b }), ErrFormat},
		{"negative sequence number", edit(func(b []byte) []byte { b[48] = 0x80; return b }), ErrFormat},
		{"payload cut off", good[:120], ErrFormat},
		{"bytes behind the payload", append(bytes.Clone(good), 'y'), ErrFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m Message
			if err := Parse(tt.frame, &m); !errors.Is(err, tt.want) {
				t.Errorf("Parse = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestParseIsLenientWithPublication(t *testing.T) {
	for _, typ := range []MessageType{PausePublication, StartPublication} {
		t.Run(string(typ), func(t *testing.T) {
			frame := make([]byte, 36) // no header length, date, digest or payload
			copy(frame[4:], typ)
			var m Message
			if err := Parse(frame, &m); err != nil {
				t.Fatal(err)
			}
			checkField(t, "type", m.Type, typ)
		})
	}
}

func TestParsePadding(t *testing.T) {
	for _, pad := range []string{" ", "\x00", "\n"} {
		frame := AppendMessage(nil, &Message{Type: Acknowledge, CreatedMillis: 1, Payload: []byte("{}")})
		copy(frame[4+len(Acknowledge):36], strings.Repeat(pad, 32))
		var m Message
		if err := Parse(frame, &m); err != nil {
			t.Fatal(err)
		}
		checkField(t, "type", m.Type, Acknowledge)
	}
}

func TestDigestOK(t *testing.T) {
	frame := AppendMessage(nil, &Message{Type: InputStreamData, CreatedMillis: 1, Payload: []byte("abc")})
	frame[len(frame)-1]++
	var m Message
	if err := Parse(frame, &m); err != nil {
		t.Fatal(err)
	}
	checkField(t, "digest ok", m.DigestOK(), false)
}

func TestUUIDText(t *testing.T) {
	id := NewUUID()
	var back UUID
	if err := back.UnmarshalText([]byte(strings.ToUpper(id.String()))); err != nil || back != id {
		t.Errorf("%v came back as %v, %v", id, back, err)
	}
	if id[6]>>4 != 4 || id[8]>>6 != 2 {
		t.Errorf("%v is not of version 4", id)
	}
	for _, bad := range []string{"", "x", strings.Repeat("-", 36), strings.Repeat("0", 36), "g" + id.String()[1:]} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add(v.frame(f))
	}
	f.Add([]byte(nil))
	f.Add(binary.BigEndian.AppendUint32(nil, 1<<31))
	f.Fuzz(func(t *testing.T, frame []byte) {
		var m, again Message
		if Parse(frame, &m) != nil {
			return
		}
		m.DigestOK()
		if m.HeaderLength != HeaderLength && m.HeaderLength != ShortHeaderLength {
			return // readable, but nothing that we would write
		}
		if m.CreatedMillis == 0 {
			return // a bare publication message
		}
		if err := Parse(AppendMessage(nil, &m), &again); err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		again.Digest = m.Digest // AppendMessage puts it right
		if !bytes.Equal(again.Payload, m.Payload) {
			t.Fatal("payload differs")
		}
		again.Payload, m.Payload = nil, nil
		if !equalMessages(&again, &m) {
			t.Fatalf("%+v came back as %+v", m, again)
		}
	})
}

func equalMessages(a, b *Message) bool {
	return a.HeaderLength == b.HeaderLength && a.Type == b.Type && a.SchemaVersion == b.SchemaVersion &&
		a.CreatedMillis == b.CreatedMillis && a.Sequence == b.Sequence && a.Flags == b.Flags &&
		a.ID == b.ID && a.Digest == b.Digest && a.PayloadType == b.PayloadType
}

func BenchmarkAppendMessage(b *testing.B) {
	m := Message{Type: InputStreamData, CreatedMillis: 1, PayloadType: Output, Payload: make([]byte, 1024)}
	frame := make([]byte, 0, 2048)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		m.ID = NewUUID()
		frame = AppendMessage(frame[:0], &m)
	}
}

func BenchmarkParse(b *testing.B) {
	frame := AppendMessage(nil, &Message{
		Type: OutputStreamData, CreatedMillis: 1, ID: NewUUID(), PayloadType: Output, Payload: make([]byte, 1024),
	})
	b.SetBytes(1024)
	b.ReportAllocs()
	var m Message
	for b.Loop() {
		if Parse(frame, &m) != nil || !m.DigestOK() {
			b.Fatal("wrong")
		}
	}
}
