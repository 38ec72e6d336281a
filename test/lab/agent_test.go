package lab_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"ssm-ssh/ssmchannel/agentmsg"
	"ssm-ssh/test/lab"
)

const sshDocument = "AWS-StartSSHSession"

func TestAgentRepeatsOldestOnly(t *testing.T) {
	r, conn := session(t, startLab(t, lab.Options{}))
	conn.Write(bytes.Repeat([]byte("x"), 5*1024))
	seen := make(map[int64]int)
	first := int64(-1)
	began := time.Now()
	for len(seen) < 5 || seen[first] < 4 {
		m, err := r.read(rawTimeout)
		if err != nil {
			t.Fatalf("%v; seen so far: %v", err, seen)
		}
		if m.Type != agentmsg.OutputStreamData || m.PayloadType != agentmsg.Output {
			continue
		}
		if first < 0 {
			first = m.Sequence
		}
		seen[m.Sequence]++
	}
	if d := time.Since(began); d < 100*time.Millisecond {
		t.Errorf("three repetitions within %v, faster than the agent looks", d)
	}
	for number, times := range seen {
		if number != first && times != 1 {
			t.Errorf("message %d came %d times", number, times)
		}
	}
}

func TestAgentDiscardsEarlyInput(t *testing.T) {
	l := startLab(t, lab.Options{})
	p, r := newPort(t), newRaw(t, l)
	r.open(r.start(sshDocument, p.number()))
	r.await("handshake request", output(agentmsg.HandshakeRequestPayload))
	r.send(0, agentmsg.Output, []byte("too early"))
	r.await("acknowledgement", ackOf(0))
	r.respond(1, "1.3.0.0")
	r.await("handshake complete", output(agentmsg.HandshakeCompletePayload))
	conn := p.accept()
	conn.Write([]byte("banner")) // once it has come, input is taken
	r.await("output", func(m *agentmsg.Message) bool { return output(agentmsg.Output)(m) && string(m.Payload) == "banner" })
	r.send(2, agentmsg.Output, []byte("in time"))
	got := make([]byte, 7)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "in time" {
		t.Errorf("the port got %q, %v", got, err)
	}
	if n := l.Counts().EarlyDiscarded; n != 1 {
		t.Errorf("%d messages discarded", n)
	}
}

func TestAgentRefusesInputBeforeDial(t *testing.T) {
	l := startLab(t, lab.Options{Timing: lab.Timing{PortDial: 300 * time.Millisecond}})
	p, r := newPort(t), newRaw(t, l)
	r.open(r.start(sshDocument, p.number()))
	r.handshake("1.3.0.0")
	r.data("first")  // refused
	r.data("second") // acknowledged and stored
	m := r.await("an acknowledgement of data", func(m *agentmsg.Message) bool {
		return m.Type == agentmsg.Acknowledge && !ackOf(0)(m)
	})
	if !ackOf(2)(m) {
		t.Error("the first data was acknowledged before the port was dialled")
	}
	conn := p.accept()
	conn.Write([]byte("banner")) // once it has come, input is taken
	r.await("output", output(agentmsg.Output))
	r.send(1, agentmsg.Output, []byte("first"))
	got := make([]byte, 11)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "firstsecond" {
		t.Errorf("the port got %q, %v", got, err)
	}
}

func TestAgentReacknowledges(t *testing.T) {
	r, conn := session(t, startLab(t, lab.Options{}))
	conn.Write([]byte("banner")) // once it has come, input is taken
	r.ack(r.await("output", output(agentmsg.Output)))
	r.data("x")
	r.await("acknowledgement", ackOf(1))
	r.send(1, agentmsg.Output, []byte("x"))
	r.await("acknowledgement of the duplicate", ackOf(1))
	r.send(3, agentmsg.Output, []byte("z"))
	r.await("acknowledgement out of order", ackOf(3))
	r.send(2, agentmsg.Output, []byte("y"))
	r.await("acknowledgement of the gap", ackOf(2))
	got := make([]byte, 3)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "xyz" {
		t.Errorf("the port got %q, %v", got, err)
	}
}

func TestAgentPace(t *testing.T) {
	const messages = 300
	r, conn := session(t, startLab(t, lab.Options{}))
	go conn.Write(make([]byte, messages*1024)) // ends with the connection at the latest
	var began time.Time
	for n := 0; n < messages; {
		m, err := r.read(rawTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if !output(agentmsg.Output)(m) {
			continue
		}
		r.ack(m)
		if len(m.Payload) > 1024 {
			t.Fatalf("%d bytes in one message", len(m.Payload))
		}
		if began.IsZero() {
			began = time.Now()
		}
		n++
	}
	if took := time.Since(began); took < (messages-10)*time.Millisecond {
		t.Errorf("%d messages in %v", messages, took)
	}
}

func TestSecondHandshakeResponseBlocksAgent(t *testing.T) {
	r, conn := session(t, startLab(t, lab.Options{}))
	conn.Write([]byte("banner"))
	r.ack(r.await("output", output(agentmsg.Output)))
	r.respond(1, "1.3.0.0")
	r.send(2, agentmsg.Output, []byte("unheard"))
	for {
		m, err := r.read(300 * time.Millisecond)
		if isTimeout(err) {
			return
		}
		if err != nil || m.Type == agentmsg.Acknowledge {
			t.Fatalf("the agent still acknowledges: %v", err)
		}
	}
}

func TestSessionEnds(t *testing.T) {
	tests := []struct {
		name  string
		end   func(r *raw, conn io.Closer)
		state string
	}{
		{"the port closes", func(_ *raw, conn io.Closer) { conn.Close() }, "Terminated"},
		{"flag", func(r *raw, _ io.Closer) {
			r.send(r.next, agentmsg.FlagPayload, agentmsg.AppendFlag(nil, agentmsg.TerminateSession))
		}, "Terminated"},
		{"idle", func(r *raw, _ io.Closer) { r.lab.Faults().Expire() }, "Terminated"},
		{"refused action", nil, "Failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := startLab(t, lab.Options{})
			var r *raw
			if tt.end == nil {
				r = newRaw(t, l)
				r.open(r.start(sshDocument, "9"))
				r.ack(r.await("handshake request", output(agentmsg.HandshakeRequestPayload)))
				payload, _ := agentmsg.MarshalPayload(agentmsg.HandshakeResponse{ProcessedClientActions: []agentmsg.ProcessedAction{
					{ActionType: agentmsg.SessionTypeAction, ActionStatus: agentmsg.ActionUnsupported}}})
				r.send(0, agentmsg.HandshakeResponsePayload, payload)
			} else {
				var conn io.Closer
				r, conn = session(t, l)
				tt.end(r, conn)
			}
			m := r.await("channel_closed", ofType(agentmsg.ChannelClosed))
			closed, err := agentmsg.ParseChannelClosed(m.Payload)
			if err != nil || closed.SessionID != r.id || m.HeaderLength != agentmsg.ShortHeaderLength {
				t.Errorf("channel_closed: %+v, header %d, %v", closed, m.HeaderLength, err)
			}
			if _, err := r.read(rawTimeout); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("after channel_closed: %v", err)
			}
			waitFor(t, func() bool { c := l.Counts(); return c.LiveSessions == 0 && c.LiveWorkers == 0 })
			if token := r.resume(); token != "" {
				t.Error("an ended session can be resumed")
			}
		})
	}
}

func TestHandshakeTimeout(t *testing.T) {
	l := startLab(t, lab.Options{Timing: lab.Timing{Handshake: 50 * time.Millisecond}})
	r := newRaw(t, l)
	r.open(r.start(sshDocument, "9"))
	m := r.await("channel_closed", ofType(agentmsg.ChannelClosed))
	if closed, err := agentmsg.ParseChannelClosed(m.Payload); err != nil || !strings.Contains(closed.Output, "timed out") {
		t.Errorf("%+v, %v", closed, err)
	}
}

func TestRefusedPortCrashesWorker(t *testing.T) {
	l := startLab(t, lab.Options{Timing: lab.Timing{CrashSilence: 100 * time.Millisecond}})
	r := newRaw(t, l)
	p := newPort(t)
	p.l.Close()
	r.open(r.start(sshDocument, p.number()))
	r.handshake("1.3.0.0")
	began := time.Now()
	m := r.await("channel_closed", ofType(agentmsg.ChannelClosed))
	if closed, err := agentmsg.ParseChannelClosed(m.Payload); err != nil || !strings.Contains(closed.Output, "ipc messaging received timeout signal") {
		t.Errorf("%+v, %v", closed, err)
	}
	if d := time.Since(began); d < 90*time.Millisecond {
		t.Errorf("it was told after %v", d)
	}
}

func TestResume(t *testing.T) {
	l := startLab(t, lab.Options{})
	r, conn := session(t, l)
	conn.Write([]byte("before"))
	r.ack(r.await("output", output(agentmsg.Output)))
	for _, cut := range []struct {
		name string
		do   func()
	}{
		{"client", l.Faults().CutClients}, {"bye", l.Faults().ByeClients}, {"agent", l.Faults().CutAgents},
	} {
		t.Run(cut.name, func(t *testing.T) {
			r.t = t
			cut.do()
			if cut.name != "agent" {
				for err := error(nil); err == nil; { // what is under way, then the end
					_, err = r.read(rawTimeout)
				}
				token := r.resume()
				r.open(token)
			} else {
				r.await("the agent's return", ofType(agentmsg.StartPublication))
			}
			conn.Write([]byte(cut.name))
			m := r.await("output", output(agentmsg.Output))
			if string(m.Payload) != cut.name {
				t.Errorf("got %q", m.Payload)
			}
			r.ack(m)
			r.data("ping")
			r.await("acknowledgement", ackOf(r.next-1))
		})
	}
	c := l.Counts()
	if c.ResumeSession != 2 || c.DataChannels != 3 || c.LiveSessions != 1 {
		t.Errorf("%+v", c)
	}
}

func TestTokenIsForOneConnection(t *testing.T) {
	l := startLab(t, lab.Options{})
	r := newRaw(t, l)
	token := r.start(sshDocument, "9")
	r.open(token)
	r.await("handshake request", output(agentmsg.HandshakeRequestPayload))
	r.open(token)
	if _, err := r.read(rawTimeout); websocket.CloseStatus(err) == -1 {
		t.Errorf("the second use of a token: %v", err)
	}
	l.Faults().Update(func(f *lab.FaultSet) { f.TokenMillis = 1 })
	late := r.resume()
	<-time.After(5 * time.Millisecond) // longer than the token's life
	r.open(late)
	if _, err := r.read(rawTimeout); websocket.CloseStatus(err) == -1 {
		t.Errorf("an old token: %v", err)
	}
}

func TestAbsentClientPausesAgent(t *testing.T) {
	l := startLab(t, lab.Options{})
	r := newRaw(t, l)
	token := r.start(sshDocument, "9")
	waitFor(t, func() bool { return l.Counts().Pauses > 0 }) // the handshake request found nobody
	r.open(token)
	m := r.await("handshake request", output(agentmsg.HandshakeRequestPayload))
	if m.Sequence != 0 || m.Flags != agentmsg.FlagSyn {
		t.Errorf("number %d, flags %d", m.Sequence, m.Flags)
	}
}
