package ssmchannel

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

func TestNodeSilent(t *testing.T) {
	t.Run("nothing is acknowledged", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{}, func(s *scene) {
			s.write([]byte("x"))
			s.expect([]byte("x"))
			time.Sleep(time.Minute) // an idle node is not a silent one
			s.peer.setAway(true)
			started := time.Now()
			s.write([]byte("y"))
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took < 15*time.Second || took > 16*time.Second {
				t.Errorf("noticed after %v", took)
			}
			if repeats := s.conn.Stats().Retransmissions; repeats > 12 {
				t.Errorf("%d repeats to a silent node", repeats)
			}
		})
	})
	t.Run("pause that stays", func(t *testing.T) {
		inScene(t, peerOptions{}, faults{}, Config{}, func(s *scene) {
			s.net.inject(publication(agentmsg.PausePublication))
			started := time.Now()
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took != 15*time.Second {
				t.Errorf("noticed after %v", took)
			}
		})
	})
	t.Run("port never spoke", func(t *testing.T) {
		inScene(t, peerOptions{refuseFor: time.Hour}, faults{}, Config{}, func(s *scene) {
			s.write([]byte("SSH-2.0-Test\r\n"))
			<-s.conn.Done()
			if err := s.conn.Err(); !errors.Is(err, ErrNodeSilent) || !strings.Contains(err.Error(), "port 22") {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("heard, but never acknowledging", func(t *testing.T) {
		inScene(t, peerOptions{refuseFor: time.Hour}, faults{}, Config{}, func(s *scene) {
			var chatter sync.WaitGroup
			chatter.Go(func() {
				for !isClosed(s.conn.Done()) {
					s.peer.write([]byte("still here"))
					time.Sleep(time.Second)
				}
			})
			started := time.Now()
			s.write([]byte("x"))
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took > giveUp+20*time.Second {
				t.Errorf("took %v", took)
			}
			chatter.Wait()
		})
	})
	t.Run("repeating itself, but never acknowledging", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{}, func(s *scene) {
			s.write([]byte("x"))
			s.expect([]byte("x"))
			s.peer.setAway(true)
			again := agentmsg.AppendMessage(nil, &agentmsg.Message{
				Type: agentmsg.OutputStreamData, CreatedMillis: 1, PayloadType: agentmsg.Output, Payload: []byte("x"),
			})
			var repeats sync.WaitGroup
			repeats.Go(func() {
				for !isClosed(s.conn.Done()) {
					s.net.inject(again)
					time.Sleep(100 * time.Millisecond)
				}
			})
			started := time.Now()
			s.write([]byte("y"))
			s.expectError(ErrNodeSilent)
			if took := time.Since(started); took < 15*time.Second || took > 16*time.Second {
				t.Errorf("noticed after %v", took)
			}
			repeats.Wait()
		})
	})
	t.Run("switched off", func(t *testing.T) {
		inScene(t, peerOptions{echo: true}, faults{}, Config{NodeSilence: -1}, func(s *scene) {
			s.peer.setAway(true)
			s.write([]byte("x"))
			time.Sleep(5 * time.Minute)
			s.peer.setAway(false)
			s.expect([]byte("x"))
		})
	})
}

func TestPauseAndStart(t *testing.T) {
	inScene(t, peerOptions{echo: true}, faults{delay: time.Millisecond}, Config{}, func(s *scene) {
		s.peer.setAway(true)
		s.net.inject(publication(agentmsg.PausePublication))
		synctest.Wait()
		if !s.conn.Paused() || s.conn.Stats().PausedSince.IsZero() {
			t.Error("not paused")
		}
		data := randomBytes(20_000, 1)
		s.write(data)
		time.Sleep(10 * time.Second)
		if sent := s.conn.Stats().MessagesSent; sent > 8 {
			t.Errorf("%d messages sent to a peer that is away", sent)
		}
		s.peer.setAway(false)
		s.net.inject(publication(agentmsg.StartPublication))
		started := time.Now()
		s.expect(data)
		if took := time.Since(started); took > 100*time.Millisecond {
			t.Errorf("took %v after the start", took)
		}
		if s.conn.Paused() {
			t.Error("still paused")
		}
	})
}
