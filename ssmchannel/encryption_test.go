package ssmchannel

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// testKey is a data key with two different halves; the first is all zero.
func testKey() []byte {
	return append(make([]byte, dataKeyBytes/2), bytes.Repeat([]byte{7}, dataKeyBytes/2)...)
}

// agentCipher is the agent's view of a data key: the halves are the other way round.
func agentCipher(t *testing.T, key []byte) *blockCipher {
	t.Helper()
	half := dataKeyBytes / 2
	b, err := newBlockCipher(append(bytes.Clone(key[half:]), key[:half]...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestCipherVector decrypts test case 14 of the GCM specification (McGrew, Viega:
// "The Galois/Counter Mode of Operation", appendix B): key, nonce and plaintext
// are zero.
func TestCipherVector(t *testing.T) {
	sealed, err := hex.DecodeString("000000000000000000000000" +
		"cea7403d4d606b6e074ec5d3baf39d18" + "d0d1c8a799996bf0265b98b5d48ab919")
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBlockCipher(testKey())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := b.decrypt(sealed)
	if err != nil || !bytes.Equal(plain, make([]byte, 16)) {
		t.Errorf("got %x, %v", plain, err)
	}
	if _, err := agentCipher(t, testKey()).decrypt(sealed); !errors.Is(err, errUndecryptable) {
		t.Errorf("with the other half: %v", err)
	}
	if n := b.overhead(); n != 28 {
		t.Errorf("overhead of %d bytes", n)
	}
}

func TestCipherRefuses(t *testing.T) {
	for _, n := range []int{0, 32, 63, 65} {
		if _, err := newBlockCipher(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was taken", n)
		}
	}
	ours, err := newBlockCipher(testKey())
	if err != nil {
		t.Fatal(err)
	}
	theirs := agentCipher(t, testKey())
	sealed := bytes.Clone(ours.encrypt([]byte("payload")))
	for i := range sealed {
		spoiled := bytes.Clone(sealed)
		spoiled[i] ^= 1
		if _, err := theirs.decrypt(spoiled); err == nil {
			t.Errorf("byte %d changed, unnoticed", i)
		}
	}
	if _, err := theirs.decrypt(sealed[:20]); err == nil {
		t.Error("a cut payload was taken")
	}
	if plain, err := theirs.decrypt(sealed); err != nil || string(plain) != "payload" {
		t.Errorf("got %q, %v", plain, err)
	}
}

// shell is a connection that is fed by hand, as far as the data key.
type shell struct {
	*Conn
	t      *testing.T
	number int64
	agent  *blockCipher
}

func newShell(t *testing.T, cfg Config) *shell {
	c := newConn(Session{ID: "s-1"}, cfg.populate(), nil)
	t.Cleanup(func() { c.cancel(errors.New("over")) })
	return &shell{Conn: c, t: t, agent: agentCipher(t, testKey())}
}

func (s *shell) feed(kind agentmsg.PayloadType, payload []byte) error {
	s.t.Helper()
	m := agentmsg.Message{Type: agentmsg.OutputStreamData, CreatedMillis: 1, Sequence: s.number, PayloadType: kind, Payload: payload}
	s.number++
	return s.receive(agentmsg.AppendMessage(nil, &m))
}

// request feeds a handshake request for an encrypted shell.
func (s *shell) request(challenge string) {
	s.t.Helper()
	parameters, _ := json.Marshal(agentmsg.KMSParameters{KMSKeyID: "key-1", Challenge: challenge})
	payload, err := agentmsg.MarshalPayload(agentmsg.HandshakeRequest{AgentVersion: "3.3.987.0", RequestedClientActions: []agentmsg.RequestedAction{
		{ActionType: agentmsg.SessionTypeAction, ActionParameters: json.RawMessage(`{"SessionType":"Standard_Stream","Properties":null}`)},
		{ActionType: agentmsg.KMSEncryptionAction, ActionParameters: parameters},
	}})
	if err == nil {
		err = s.feed(agentmsg.HandshakeRequestPayload, payload)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// sent returns the payload of the i-th message that we have queued.
func (s *shell) sent(i int) agentmsg.Message {
	s.t.Helper()
	if i >= s.out.sent.len() {
		s.t.Fatalf("only %d messages queued", s.out.sent.len())
	}
	var m agentmsg.Message
	if err := agentmsg.Parse(s.out.sent.at(i).frame.b, &m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *shell) response() agentmsg.HandshakeResponse {
	s.t.Helper()
	r, err := agentmsg.ParseHandshakeResponse(s.sent(0).Payload)
	if err != nil || len(r.ProcessedClientActions) != 2 {
		s.t.Fatalf("%+v, %v", r, err)
	}
	return r
}

func keyService(seen *map[string]string, erased *[]byte) func(context.Context, string, map[string]string) ([]byte, []byte, error) {
	return func(_ context.Context, _ string, bound map[string]string) ([]byte, []byte, error) {
		key := testKey()
		*seen, *erased = maps.Clone(bound), key
		return key, []byte("sealed key"), nil
	}
}

func (s *shell) challenge(plain []byte) []byte {
	s.t.Helper()
	payload, err := agentmsg.MarshalPayload(agentmsg.EncryptionChallenge{Challenge: s.agent.ours.Seal(nil, nil, plain, nil)})
	if err != nil {
		s.t.Fatal(err)
	}
	return payload
}

func TestEncryptedHandshake(t *testing.T) {
	tests := []struct {
		name, challenge string
		bound           map[string]string
	}{
		{"old agent", "", map[string]string{contextSession: "s-1", contextTarget: "mi-1"}},
		{"with a challenge", "Y2hhbGxlbmdl", map[string]string{contextSession: "s-1", contextTarget: "mi-1", contextChallenge: "Y2hhbGxlbmdl"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var bound map[string]string
			var key []byte
			s := newShell(t, Config{TargetID: "mi-1", GenerateDataKey: keyService(&bound, &key)})
			s.request(tt.challenge)
			if s.out.sent.len() != 0 {
				t.Fatal("answered before there was a key")
			}
			s.supplyKey(t.Context())
			if !maps.Equal(bound, tt.bound) {
				t.Errorf("encryption context %v", bound)
			}
			if !bytes.Equal(key, make([]byte, dataKeyBytes)) {
				t.Error("the data key was not erased")
			}
			action := s.response().ProcessedClientActions[1]
			result, _ := json.Marshal(action.ActionResult)
			want := `{"ChallengeAcknowledgement":` + map[bool]string{true: "true", false: "false"}[tt.challenge != ""] +
				`,"KMSCipherTextHash":null,"KMSCipherTextKey":"c2VhbGVkIGtleQ=="}`
			if action.ActionStatus != agentmsg.ActionSuccess || string(result) != want {
				t.Errorf("%+v: %s", action, result)
			}
			random := bytes.Repeat([]byte("x"), challengeBytes)
			if err := s.feed(agentmsg.EncChallengeRequest, s.challenge(random)); err != nil {
				t.Fatal(err)
			}
			answer, err := agentmsg.ParseEncryptionChallenge(s.sent(1).Payload)
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := s.agent.decrypt(answer.Challenge); err != nil || !bytes.Equal(plain, random) {
				t.Errorf("answered %x, %v", plain, err)
			}
			s.checkData()
		})
	}
}

// checkData completes the handshake and passes data of each type in both directions.
func (s *shell) checkData() {
	s.t.Helper()
	if err := s.feed(agentmsg.HandshakeCompletePayload, []byte(`{}`)); err != nil {
		s.t.Fatal(err)
	}
	for kind, text := range map[agentmsg.PayloadType]string{
		agentmsg.Output: "to stdout", agentmsg.StdErr: "to stderr", agentmsg.ExitCode: "EXIT_CODE: 3",
	} {
		if err := s.feed(kind, bytes.Clone(s.agent.encrypt([]byte(text)))); err != nil {
			s.t.Fatal(err)
		}
	}
	buf := make([]byte, 64)
	if n, err := s.Read(buf); err != nil || string(buf[:n]) != "to stdout" {
		s.t.Errorf("stdout %q, %v", buf[:n], err)
	}
	if n, err := s.Stderr().Read(buf); err != nil || string(buf[:n]) != "to stderr" {
		s.t.Errorf("stderr %q, %v", buf[:n], err)
	}
	if code, known := s.ExitCode(); code != 3 || !known {
		s.t.Errorf("exit code %d, %v", code, known)
	}
	before := s.out.sent.len()
	if _, err := io.WriteString(s.Conn, "input"); err != nil {
		s.t.Fatal(err)
	}
	if err := s.Resize(80, 24); err != nil {
		s.t.Fatal(err)
	}
	if plain, err := s.agent.decrypt(s.sent(before).Payload); err != nil || string(plain) != "input" {
		s.t.Errorf("input %q, %v", plain, err)
	}
	if m := s.sent(before + 1); m.PayloadType != agentmsg.Size || string(m.Payload) != `{"cols":80,"rows":24}` {
		s.t.Errorf("size of type %d: %q", m.PayloadType, m.Payload)
	}
	if stats := s.Stats(); stats.BytesSent != uint64(len("input")) {
		s.t.Errorf("%d bytes counted", stats.BytesSent)
	}
}

// established is a shell whose handshake is over but for HandshakeComplete.
func established(t *testing.T) *shell {
	t.Helper()
	var bound map[string]string
	var key []byte
	s := newShell(t, Config{GenerateDataKey: keyService(&bound, &key)})
	s.request("")
	s.supplyKey(t.Context())
	return s
}

func TestChangedDataEndsTheConnection(t *testing.T) {
	s := established(t)
	s.feed(agentmsg.HandshakeCompletePayload, []byte(`{}`))
	sealed := bytes.Clone(s.agent.encrypt([]byte("secret")))
	sealed[20] ^= 1
	for name, payload := range map[string][]byte{"changed": sealed, "plain": []byte("not encrypted"), "own": bytes.Clone(s.shake.crypt.encrypt([]byte("echo")))} {
		err := s.feed(agentmsg.Output, payload)
		if !errors.Is(err, ErrProtocol) || !errors.Is(err, errUndecryptable) || s.final(err) == nil {
			t.Errorf("%s payload: %v", name, err)
		}
	}
	if s.inbox.n != 0 {
		t.Error("something was delivered")
	}
}

func TestChallengeIsAnsweredOnce(t *testing.T) {
	random := make([]byte, challengeBytes)
	t.Run("second", func(t *testing.T) {
		s := established(t)
		s.feed(agentmsg.EncChallengeRequest, s.challenge(random))
		s.feed(agentmsg.EncChallengeRequest, s.challenge(random))
		if n := s.out.sent.len(); n != 2 {
			t.Errorf("%d messages sent", n)
		}
	})
	t.Run("late", func(t *testing.T) {
		s := established(t)
		s.feed(agentmsg.HandshakeCompletePayload, []byte(`{}`))
		s.feed(agentmsg.EncChallengeRequest, s.challenge(random))
		if n := s.out.sent.len(); n != 0 && s.sent(n-1).PayloadType == agentmsg.EncChallengeResponse {
			t.Error("it was answered")
		}
	})
	for name, payload := range map[string]func(*shell) []byte{
		"wrong key halves": func(s *shell) []byte {
			s.agent = s.shake.crypt
			return s.challenge(random)
		},
		"short": func(s *shell) []byte { return s.challenge(random[:16]) },
	} {
		t.Run(name, func(t *testing.T) {
			s := established(t)
			if err := s.feed(agentmsg.EncChallengeRequest, payload(s)); err != nil {
				t.Fatal(err)
			}
			if err := s.awaitHandshake(t.Context()); err == nil || !strings.Contains(err.Error(), "challenge") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestNoDataWithoutTheKey(t *testing.T) {
	var bound map[string]string
	var key []byte
	cfg := Config{GenerateDataKey: keyService(&bound, &key)}
	t.Run("complete too early", func(t *testing.T) {
		s := newShell(t, cfg)
		s.request("")
		s.feed(agentmsg.HandshakeCompletePayload, []byte(`{}`))
		if err := s.shake.err; !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("output does not end the handshake", func(t *testing.T) {
		s := newShell(t, cfg)
		s.request("")
		s.feed(agentmsg.Output, []byte("$ "))
		if s.shake.complete {
			t.Error("it has")
		}
	})
	t.Run("request after a start without handshake", func(t *testing.T) {
		s := newShell(t, cfg)
		s.feed(agentmsg.Output, []byte("$ "))
		s.request("")
		if s.shake.wanted != nil || !s.shake.complete {
			t.Error("it was answered")
		}
	})
}

func TestRefusedDataKey(t *testing.T) {
	denied := errors.New("denied by a policy")
	tests := []struct {
		name string
		call func(context.Context, string, map[string]string) ([]byte, []byte, error)
		want string
	}{
		{"refused", func(context.Context, string, map[string]string) ([]byte, []byte, error) { return nil, nil, denied }, "denied by a policy"},
		{"short key", func(context.Context, string, map[string]string) ([]byte, []byte, error) {
			return make([]byte, 32), []byte("x"), nil
		}, "32 bytes"},
		{"connection over", func(ctx context.Context, _ string, _ map[string]string) ([]byte, []byte, error) {
			<-ctx.Done()
			return nil, nil, context.Cause(ctx)
		}, "the end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newShell(t, Config{GenerateDataKey: tt.call})
			s.request("")
			if tt.want == "the end" {
				time.AfterFunc(time.Millisecond, func() { s.cancel(errors.New("the end")) })
			}
			err := s.awaitHandshake(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if tt.name == "refused" && !errors.Is(err, denied) {
				t.Errorf("the cause is lost: %v", err)
			}
			if a := s.response().ProcessedClientActions[1]; a.ActionStatus != agentmsg.ActionFailed || strings.Contains(a.Error, "policy") {
				t.Errorf("answered %+v", a)
			}
		})
	}
}

// FuzzDecrypt opens payloads of a peer that may not have the key.
func FuzzDecrypt(f *testing.F) {
	f.Add([]byte{}, byte(0))
	f.Add(make([]byte, 28), byte(1))
	f.Add([]byte("some text to be encrypted"), byte(12))
	f.Fuzz(func(t *testing.T, data []byte, at byte) {
		ours, err := newBlockCipher(testKey())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ours.decrypt(data); err == nil {
			t.Error("a payload nobody has encrypted was taken")
		}
		theirs := agentCipher(t, testKey())
		sealed := ours.encrypt(data)
		if plain, err := theirs.decrypt(sealed); err != nil || !bytes.Equal(plain, data) {
			t.Errorf("%d bytes became %d, %v", len(data), len(plain), err)
		}
		sealed[int(at)%len(sealed)] ^= 1
		if _, err := theirs.decrypt(sealed); err == nil {
			t.Error("a changed payload was taken")
		}
	})
}
