package ssmchannel

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"ssm-ssh/ssmchannel/agentmsg"
)

// FuzzReceive feeds a connection's receiving side with two messages of a peer
// that does what it likes. Nothing may panic or grow beyond the bounds.
func FuzzReceive(f *testing.F) {
	raw, err := os.ReadFile("agentmsg/testdata/vectors.json")
	if err != nil {
		f.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Type    agentmsg.MessageType `json:"message_type"`
			Kind    agentmsg.PayloadType `json:"payload_type"`
			Payload string               `json:"payload_text"`
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		f.Fatal(err)
	}
	for i, v := range file.Vectors {
		f.Add(string(v.Type), int64(i%2), uint32(v.Kind), []byte(v.Payload))
	}
	f.Fuzz(func(t *testing.T, kind string, number int64, payloadType uint32, payload []byte) {
		c := newConn(Session{ID: "s-1"}, Config{}.populate(), nil)
		defer c.cancel(errors.New("over"))
		m := agentmsg.Message{
			Type: agentmsg.MessageType(kind), CreatedMillis: 1, Sequence: number,
			PayloadType: agentmsg.PayloadType(payloadType), Payload: payload,
		}
		frame := agentmsg.AppendMessage(nil, &m)
		for range 2 {
			if c.receive(frame) != nil {
				break
			}
		}
		if c.in.next > 1 || len(c.acks) > 2 || c.inbox.n > len(payload) || c.out.sent.len() > 1 {
			t.Errorf("one message, sent twice, has become %d delivered, %d acknowledgements, %d bytes, %d answers",
				c.in.next, len(c.acks), c.inbox.n, c.out.sent.len())
		}
		c.receive(payload)
	})
}
