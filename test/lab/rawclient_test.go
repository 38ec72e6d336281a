package lab_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
	"ssm-ssh/test/lab"
)

const rawTimeout = 10 * time.Second

// raw speaks to a lab message by message, so that a test can do what a client should not.
type raw struct {
	t    *testing.T
	lab  *lab.Lab
	http *http.Client
	api  *ssm.Client
	id   string
	url  string
	ws   *websocket.Conn
	next int64

	acked map[int64]bool // numbers of the agent's that were acknowledged
}

func startLab(t *testing.T, opts lab.Options) *lab.Lab {
	t.Helper()
	opts.Logf = logf(t)
	if opts.Timing.Spawn == 0 {
		opts.Timing.Spawn = time.Millisecond
	}
	l, err := lab.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func setting(l *lab.Lab, name string) string {
	for _, kv := range l.Env() {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

func newRaw(t *testing.T, l *lab.Lab) *raw {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(l.Dir(), "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	r := &raw{t: t, lab: l, http: &http.Client{Transport: transport}, acked: make(map[int64]bool)}
	r.api = ssm.New(ssm.Options{
		Region: lab.Region, HTTPClient: r.http, BaseEndpoint: aws.String(setting(l, "AWS_ENDPOINT_URL_SSM")),
		Credentials: credentials.NewStaticCredentialsProvider(setting(l, "AWS_ACCESS_KEY_ID"), setting(l, "AWS_SECRET_ACCESS_KEY"), ""),
		Retryer:     aws.NopRetryer{},
	})
	t.Cleanup(func() {
		if r.ws != nil {
			r.ws.CloseNow()
		}
		transport.CloseIdleConnections()
	})
	return r
}

// start calls StartSession and returns the token.
func (r *raw) start(document, port string) (token string) {
	r.t.Helper()
	out, err := r.api.StartSession(r.t.Context(), &ssm.StartSessionInput{Target: &r.lab.Targets()[0], DocumentName: &document,
		Parameters: map[string][]string{"portNumber": {port}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.id, r.url = *out.SessionId, *out.StreamUrl
	return *out.TokenValue
}

func (r *raw) resume() (token string) {
	r.t.Helper()
	out, err := r.api.ResumeSession(r.t.Context(), &ssm.ResumeSessionInput{SessionId: &r.id})
	if err != nil {
		r.t.Fatal(err)
	}
	return aws.ToString(out.TokenValue)
}

// open connects the websocket and presents the token.
func (r *raw) open(token string) {
	r.t.Helper()
	ws, _, err := websocket.Dial(r.t.Context(), r.url, &websocket.DialOptions{HTTPClient: r.http})
	if err != nil {
		r.t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	open, err := agentmsg.MarshalPayload(agentmsg.OpenDataChannel{MessageSchemaVersion: "1.0", RequestID: "1", TokenValue: token, ClientID: "1", ClientVersion: "1.3.0.0"})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := ws.Write(r.t.Context(), websocket.MessageText, open); err != nil {
		r.t.Fatal(err)
	}
	r.ws = ws
}

// read returns the next message that was not acknowledged before; nil after limit.
func (r *raw) read(limit time.Duration) (*agentmsg.Message, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), limit)
	defer cancel()
	for {
		_, frame, err := r.ws.Read(ctx)
		if err != nil {
			return nil, err
		}
		m := new(agentmsg.Message)
		if err := agentmsg.Parse(frame, m); err != nil {
			return m, err
		}
		if m.Type != agentmsg.OutputStreamData || !r.acked[m.Sequence] {
			return m, nil
		}
		r.ack(m) // the agent has missed an acknowledgement, and repeats this message and no other
	}
}

// await reads until a message matches, and returns it.
func (r *raw) await(what string, match func(*agentmsg.Message) bool) *agentmsg.Message {
	r.t.Helper()
	for began := time.Now(); time.Since(began) < rawTimeout; {
		m, err := r.read(rawTimeout)
		if err != nil {
			r.t.Fatalf("awaiting %s: %v", what, err)
		}
		if match(m) {
			return m
		}
	}
	r.t.Fatalf("awaiting %s: nothing came", what)
	return nil
}

func output(kind agentmsg.PayloadType) func(*agentmsg.Message) bool {
	return func(m *agentmsg.Message) bool {
		return m.Type == agentmsg.OutputStreamData && m.PayloadType == kind
	}
}

func ackOf(number int64) func(*agentmsg.Message) bool {
	return func(m *agentmsg.Message) bool {
		var ack agentmsg.Ack
		return m.Type == agentmsg.Acknowledge && agentmsg.ParseAck(m.Payload, &ack) == nil && ack.Sequence == number
	}
}

func ofType(kind agentmsg.MessageType) func(*agentmsg.Message) bool {
	return func(m *agentmsg.Message) bool { return m.Type == kind }
}

// send sends a stream message under a number of the caller's choice.
func (r *raw) send(number int64, kind agentmsg.PayloadType, payload []byte) {
	r.t.Helper()
	r.write(agentmsg.Message{Type: agentmsg.InputStreamData, Sequence: number, PayloadType: kind, Payload: payload})
}

func (r *raw) data(payload string) {
	r.t.Helper()
	r.send(r.next, agentmsg.Output, []byte(payload))
	r.next++
}

func (r *raw) ack(m *agentmsg.Message) {
	r.t.Helper()
	r.acked[m.Sequence] = true
	payload := agentmsg.AppendAck(nil, &agentmsg.Ack{Type: m.Type, ID: m.ID, Sequence: m.Sequence, Sequential: true})
	r.write(agentmsg.Message{Type: agentmsg.Acknowledge, Flags: agentmsg.AckFlags, Payload: payload})
}

func (r *raw) write(m agentmsg.Message) {
	r.t.Helper()
	m.CreatedMillis, m.ID = uint64(time.Now().UnixMilli()), agentmsg.NewUUID()
	ctx, cancel := context.WithTimeout(r.t.Context(), rawTimeout)
	defer cancel()
	if err := r.ws.Write(ctx, websocket.MessageBinary, agentmsg.AppendMessage(nil, &m)); err != nil {
		r.t.Fatal(err)
	}
}

// handshake answers the agent's request under number 0 and awaits completion.
func (r *raw) handshake(version string) {
	r.t.Helper()
	r.ack(r.await("handshake request", output(agentmsg.HandshakeRequestPayload)))
	r.respond(0, version)
	r.ack(r.await("handshake complete", output(agentmsg.HandshakeCompletePayload)))
	r.next = 1
}

func (r *raw) respond(number int64, version string) {
	r.t.Helper()
	payload, err := agentmsg.MarshalPayload(agentmsg.HandshakeResponse{ClientVersion: version,
		ProcessedClientActions: []agentmsg.ProcessedAction{{ActionType: agentmsg.SessionTypeAction, ActionStatus: agentmsg.ActionSuccess}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.send(number, agentmsg.HandshakeResponsePayload, payload)
}

// port is a listener that stands for a service on the node.
type port struct {
	t *testing.T
	l net.Listener
}

func newPort(t *testing.T) port {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return port{t, l}
}

func (p port) number() string {
	_, number, _ := net.SplitHostPort(p.l.Addr().String())
	return number
}

func (p port) accept() net.Conn {
	p.t.Helper()
	c, err := p.l.Accept()
	if err != nil {
		p.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(portLimit))
	p.t.Cleanup(func() { c.Close() })
	return c
}

// portLimit ends the waits of a test for bytes that never come.
const portLimit = time.Minute

// session opens a session to a port of the test and returns both ends. Input is taken: before the
// port's first output the agent may still refuse it.
func session(t *testing.T, l *lab.Lab) (*raw, net.Conn) {
	t.Helper()
	p := newPort(t)
	r := newRaw(t, l)
	r.open(r.start("AWS-StartSSHSession", p.number()))
	r.handshake("1.3.0.0")
	conn := p.accept()
	if _, err := conn.Write([]byte("banner")); err != nil {
		t.Fatal(err)
	}
	r.ack(r.await("banner", output(agentmsg.Output)))
	return r, conn
}

func isTimeout(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
