package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/ssmchannel/agentmsg"
)

// The agent sends at most one message in a millisecond, and a busy machine makes that longer. How
// fast it is in this minute is told by the least that can be behind a data channel: a client that
// acknowledges each message at once and does nothing else.

// pace downloads that many bytes from a port of this process and returns how long it took from the
// first message to the last.
func (r *rig) pace(size int) time.Duration {
	r.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		r.Fatal(err)
	}
	served := make(chan error, 1) // capacity 1: nobody listens when the client has failed
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			defer conn.Close()
			_, err = conn.Write(make([]byte, size))
		}
		served <- err
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.Command(self, r.lab.Targets()[0], port, strconv.Itoa(size))
	cmd.Env = append(r.env, roleVariable+"="+paceRole)
	out, err := cmd.CombinedOutput()
	listener.Close()
	if serr := <-served; err != nil || serr != nil {
		r.Fatalf("%v, %v: %s", err, serr, out)
	}
	var took time.Duration
	if _, err := fmt.Sscan(string(out), &took); err != nil {
		r.Fatalf("%q: %v", out, err)
	}
	return took
}

// playPace is the client. It prints nanoseconds.
func playPace(node, port, size string) error {
	ctx := context.Background()
	want, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	api, err := awsapi.New(ctx, awsapi.Options{})
	if err != nil {
		return err
	}
	session, err := api.StartSession(ctx, awsapi.StartInput{Target: node, Document: document,
		Parameters: map[string][]string{"portNumber": {port}}})
	if err != nil {
		return err
	}
	defer api.TerminateSession(ctx, session.ID)
	header, err := api.SignStream(ctx, session.StreamURL)
	if err != nil {
		return err
	}
	ws, _, err := websocket.Dial(ctx, session.StreamURL, &websocket.DialOptions{HTTPClient: api.HTTPClient(), HTTPHeader: header})
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	ws.SetReadLimit(-1)
	open, err := agentmsg.MarshalPayload(agentmsg.OpenDataChannel{MessageSchemaVersion: agentmsg.OpenSchemaVersion,
		RequestID: agentmsg.NewUUID().String(), TokenValue: session.Token, ClientID: agentmsg.NewUUID().String(), ClientVersion: "1.3.0.0"})
	if err != nil {
		return err
	}
	if err := ws.Write(ctx, websocket.MessageText, open); err != nil {
		return err
	}
	p := paced{ws: ws, left: want}
	if err := p.run(ctx); err != nil {
		return err
	}
	fmt.Println(p.last.Sub(p.first).Nanoseconds())
	return nil
}

// paced is the reading end of a session.
type paced struct {
	ws          *websocket.Conn
	left        int
	next        int64
	first, last time.Time
	frame       bytes.Buffer
	ack         []byte
}

func (p *paced) run(ctx context.Context) error {
	var m agentmsg.Message
	for p.left > 0 {
		_, r, err := p.ws.Reader(ctx)
		if err != nil {
			return err
		}
		p.frame.Reset()
		if _, err := io.Copy(&p.frame, r); err != nil {
			return err
		}
		if err := agentmsg.Parse(p.frame.Bytes(), &m); err != nil {
			return err
		}
		switch m.Type {
		case agentmsg.OutputStreamData:
			err = p.take(ctx, &m)
		case agentmsg.ChannelClosed:
			err = errors.New("the session has ended early")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take acknowledges a message and counts what is new.
func (p *paced) take(ctx context.Context, m *agentmsg.Message) error {
	p.ack = agentmsg.AppendAck(p.ack[:0], &agentmsg.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence, Sequential: true})
	if err := p.write(ctx, agentmsg.Message{Type: agentmsg.Acknowledge, Flags: agentmsg.AckFlags, Payload: p.ack}); err != nil {
		return err
	}
	if m.Sequence != p.next {
		return nil // again; the lab loses nothing unless asked to
	}
	p.next++
	switch m.PayloadType {
	case agentmsg.HandshakeRequestPayload:
		answer, err := agentmsg.MarshalPayload(agentmsg.HandshakeResponse{ClientVersion: "1.3.0.0",
			ProcessedClientActions: []agentmsg.ProcessedAction{{ActionType: agentmsg.SessionTypeAction, ActionStatus: agentmsg.ActionSuccess}}})
		if err != nil {
			return err
		}
		return p.write(ctx, agentmsg.Message{Type: agentmsg.InputStreamData, PayloadType: agentmsg.HandshakeResponsePayload, Payload: answer})
	case agentmsg.Output:
		p.last = time.Now()
		if p.first.IsZero() {
			p.first = p.last
		}
		p.left -= len(m.Payload)
	}
	return nil
}

func (p *paced) write(ctx context.Context, m agentmsg.Message) error {
	m.CreatedMillis, m.ID = uint64(time.Now().UnixMilli()), agentmsg.NewUUID()
	return p.ws.Write(ctx, websocket.MessageBinary, agentmsg.AppendMessage(nil, &m))
}
