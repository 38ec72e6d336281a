package ssmchannel

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
)

// BenchmarkSend is one message's way from Write through the outgoing state to
// its acknowledgement, without a websocket.
func BenchmarkSend(b *testing.B) {
	c := newConn(Session{}, Config{}.populate(), nil)
	defer c.cancel(errors.New("over"))
	payload := make([]byte, 1024)
	now := time.Now()
	n := int64(0)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(payload); err != nil {
			b.Fatal(err)
		}
		if c.out.transmit(now) == nil || !c.out.acked(now, n) {
			b.Fatal("not sent")
		}
		n++
	}
}

// BenchmarkReceive is one message's way from the wire to Read, and its
// acknowledgement's way to the wire.
func BenchmarkReceive(b *testing.B) {
	c := newConn(Session{}, Config{}.populate(), nil)
	defer c.cancel(errors.New("over"))
	frame := agentmsg.AppendMessage(nil, &agentmsg.Message{
		Type: agentmsg.OutputStreamData, CreatedMillis: 1, PayloadType: agentmsg.Output, Payload: make([]byte, 1024),
	})
	p := make([]byte, 4096)
	sink := sinkLink{}
	now := time.Now()
	n := int64(0)
	b.SetBytes(1024)
	b.ReportAllocs()
	for b.Loop() {
		agentmsg.PutSequence(frame, n)
		n++
		if err := c.receive(frame); err != nil {
			b.Fatal(err)
		}
		if err := c.fillAcks(sink, now); err != nil {
			b.Fatal(err)
		}
		if got, err := c.Read(p); got != 1024 || err != nil {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkAcknowledged is the arrival of an acknowledgement.
func BenchmarkAcknowledged(b *testing.B) {
	c := newConn(Session{}, Config{}.populate(), nil)
	defer c.cancel(errors.New("over"))
	now := time.Now()
	n := int64(0)
	var payload []byte
	var frame []byte
	b.ReportAllocs()
	for b.Loop() {
		c.out.push(c.newFrame(agentmsg.Output, []byte("x")))
		c.out.transmit(now)
		payload = agentmsg.AppendAck(payload[:0], &agentmsg.Ack{Type: agentmsg.InputStreamData, Sequence: n, Sequential: true})
		frame = agentmsg.AppendMessage(frame[:0], &agentmsg.Message{Type: agentmsg.Acknowledge, CreatedMillis: 1, Payload: payload})
		if err := c.receive(frame); err != nil || !c.out.empty() {
			b.Fatal(err)
		}
		n++
	}
}

// sinkLink is a link that takes everything.
type sinkLink struct{ link }

func (sinkLink) Write([]byte) error { return nil }

// BenchmarkWebsocketUpload is the whole way over a loopback websocket to a peer
// that acknowledges at once. Its allocations include the peer's.
func BenchmarkWebsocketUpload(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(ackEverything))
	defer server.Close()
	cfg := Config{}
	conn, err := Dial(context.Background(), Session{ID: "s", StreamURL: "ws" + server.URL[4:], Token: "t"}, cfg)
	if err != nil {
		b.Fatal(err)
	}
	payload := make([]byte, 64<<10)
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(payload); err != nil {
			b.Fatal(err)
		}
	}
	conn.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// ackEverything is the shortest agent there is.
func ackEverything(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ctx := context.Background()
	first := agentmsg.AppendMessage(nil, &agentmsg.Message{
		Type: agentmsg.OutputStreamData, CreatedMillis: 1, PayloadType: agentmsg.Output, Payload: []byte("$"),
	})
	if _, _, err := ws.Read(ctx); err != nil || ws.Write(ctx, websocket.MessageBinary, first) != nil {
		return
	}
	var m agentmsg.Message
	var builder ackBuilder
	buf := make([]byte, 0, 4096)
	for {
		_, reader, err := ws.Reader(ctx)
		if err != nil {
			return
		}
		buf = buf[:0]
		for err == nil {
			var n int
			n, err = reader.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
		}
		if err != io.EOF || agentmsg.Parse(buf, &m) != nil || m.Type != agentmsg.InputStreamData {
			continue
		}
		ack := builder.build(time.Now(), ackRecord{m.ID, m.Sequence})
		if m.PayloadType == agentmsg.FlagPayload {
			ack = channelClosed("")
		}
		if ws.Write(ctx, websocket.MessageBinary, ack) != nil {
			return
		}
	}
}
