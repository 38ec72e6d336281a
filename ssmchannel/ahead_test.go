package ssmchannel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// The answer ahead saves a round trip, and the request, which comes whenever it does, is only read for
// what it tells.
func TestAnswerAhead(t *testing.T) {
	const oneWay = 50 * ms
	for _, ahead := range []bool{false, true} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			opt := peerOptions{banner: "SSH-2.0-sshd\r\n"}
			inScene(t, opt, faults{delay: oneWay}, Config{AnswerAhead: ahead}, func(s *scene) {
				s.expect([]byte(opt.banner))
				trips := float64(time.Since(s.net.began)) / float64(2*oneWay)
				if want := map[bool]float64{false: 1.5, true: 1}[ahead]; trips > want+0.2 {
					t.Errorf("the port's first words after %.1f round trips, want %.1f", trips, want)
				}
				if v, kind := s.conn.AgentVersion(), s.conn.SessionType(); v != "3.3.0.0" || kind != agentmsg.PortSession {
					t.Errorf("agent version %q, session type %q", v, kind)
				}
				s.write([]byte("ping"))
				time.Sleep(time.Second)
				if st := s.conn.Stats(); string(s.peer.received()) != "ping" || s.peer.answers != 1 || st.RTT > 3*oneWay {
					t.Errorf("the peer has %q, %d answers, round trip %v", s.peer.received(), s.peer.answers, st.RTT)
				}
			})
		})
	}
}

// An answer that was lost since the agent was not there yet is sent again when its request comes, not
// only after a time-out.
func TestAnswerAheadOfTheAgent(t *testing.T) {
	p := peerOptions{banner: "SSH-2.0-sshd\r\n", startsAfter: 90 * ms}
	inScene(t, p, faults{delay: 10 * ms}, Config{AnswerAhead: true}, func(s *scene) {
		s.expect([]byte(p.banner))
		if took := time.Since(s.net.began); took > 150*ms || s.peer.answers != 1 {
			t.Errorf("the port's first words after %v, %d answers", took, s.peer.answers)
		}
		if limit := s.conn.Stats().WindowBytes; limit < initialWindow {
			t.Errorf("window of %d bytes: it was no congestion", limit)
		}
	})
}

func TestAnswerAheadToEncryption(t *testing.T) {
	actions := []agentmsg.RequestedAction{
		{ActionType: agentmsg.SessionTypeAction, ActionParameters: json.RawMessage(`{"SessionType":"Port"}`)},
		{ActionType: agentmsg.KMSEncryptionAction, ActionParameters: json.RawMessage(`{}`)},
	}
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(peerOptions{actions: actions})
		n := newNetwork(p, faults{delay: ms})
		ctx, cancel := context.WithCancel(t.Context())
		var agent sync.WaitGroup
		agent.Go(func() { p.run(ctx) })
		conn, err := dialWith(ctx, Session{ID: "s-1"}, Config{Resume: n.resumeSession, AnswerAhead: true}.populate(), n.dial)
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
			conn.Close()
		}
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("ended with %v", err)
		}
		cancel()
		agent.Wait()
	})
}
