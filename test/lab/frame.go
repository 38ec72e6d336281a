package lab

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
)

// unknownType is the message type of the fault of that name.
const unknownType agentmsg.MessageType = "lab_unknown_type"

// encode returns a message made now.
func encode(m agentmsg.Message) []byte {
	m.CreatedMillis = uint64(time.Now().UnixMilli())
	m.ID = agentmsg.NewUUID()
	return agentmsg.AppendMessage(make([]byte, 0, agentmsg.Overhead+len(m.Payload)), &m)
}

// ackFrame returns the acknowledgement of an input message. The number in its header is always 0.
func ackFrame(of *agentmsg.Message) []byte {
	payload := agentmsg.AppendAck(make([]byte, 0, agentmsg.AckLength),
		&agentmsg.Ack{Type: of.Type, ID: of.ID, Sequence: of.Sequence, Sequential: true})
	return encode(agentmsg.Message{Type: agentmsg.Acknowledge, Flags: agentmsg.AckFlags, Payload: payload})
}

// control returns a message without information of its own. Its one byte of payload is there
// because the official serializers cannot make an empty one.
func control(kind agentmsg.MessageType) []byte {
	return encode(agentmsg.Message{Type: kind, Flags: agentmsg.FlagSyn | agentmsg.FlagFin, Payload: []byte{0}})
}

// closedFrame returns channel_closed, by default with the short header that the service has been
// seen to send.
func closedFrame(payload []byte, long bool) []byte {
	m := agentmsg.Message{HeaderLength: agentmsg.ShortHeaderLength, Type: agentmsg.ChannelClosed,
		Flags: agentmsg.FlagSyn | agentmsg.FlagFin, Payload: payload}
	if long {
		m.HeaderLength = agentmsg.HeaderLength
	}
	return encode(m)
}

// corrupted returns a copy of a message whose payload no longer fits its digest.
func corrupted(frame []byte) []byte {
	spoiled := bytes.Clone(frame)
	spoiled[len(spoiled)-1] ^= 0xff
	return spoiled
}

// garbage returns what no parser of agent messages may take, nor trip over: none of it is sent by any
// known peer.
func garbage(frame []byte) []byte {
	kinds := [][]byte{
		[]byte("this is no agent message"),
		{},
		frame[:min(len(frame), agentmsg.HeaderLength)],       // a header alone
		frame[:len(frame)-1],                                 // shorter than it says
		bytes.Repeat([]byte{0xff}, agentmsg.HeaderLength+16), // a header that ends far beyond the frame
		make([]byte, agentmsg.HeaderLength+16),
	}
	return kinds[rand.N(len(kinds))]
}

// oversizedBytes is far above any limit known of the service.
const oversizedBytes = 1 << 20

// oversized returns a message with a payload of a length that no peer sends.
func oversized(frame []byte) []byte {
	return append(bytes.Clone(frame), make([]byte, oversizedBytes-len(frame))...)
}

// A frameReader reads the messages of a websocket into one buffer.
type frameReader struct {
	ws  *websocket.Conn
	buf bytes.Buffer
}

// next returns the next message, text or binary; it is good until the call after.
func (f *frameReader) next(ctx context.Context) ([]byte, error) {
	_, r, err := f.ws.Reader(ctx)
	if err != nil {
		return nil, err
	}
	f.buf.Reset()
	if _, err := io.Copy(&f.buf, r); err != nil {
		return nil, err
	}
	return f.buf.Bytes(), nil
}
