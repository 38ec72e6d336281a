package agentmsg

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestParseHandshakeRequest(t *testing.T) {
	v := findVector(t, "output_stream_data_handshake_request")
	request, err := ParseHandshakeRequest(v.payload(t))
	if err != nil {
		t.Fatal(err)
	}
	checkField(t, "agent version", request.AgentVersion, "3.3.0.0")
	checkField(t, "actions", len(request.RequestedClientActions), 1)
	parameters, err := request.RequestedClientActions[0].SessionType()
	if err != nil {
		t.Fatal(err)
	}
	checkField(t, "session type", parameters.SessionType, PortSession)
	checkField(t, "port", parameters.Properties.PortNumber, "22")
}

func TestParseKMSParameters(t *testing.T) {
	action := RequestedAction{
		ActionType:       KMSEncryptionAction,
		ActionParameters: json.RawMessage(`{"KMSKeyId":"alias/k","Challenge":"AAEC"}`),
	}
	got, err := action.KMS()
	if err != nil {
		t.Fatal(err)
	}
	checkField(t, "parameters", got, KMSParameters{KMSKeyID: "alias/k", Challenge: "AAEC"})
}

func TestParseFlag(t *testing.T) {
	got, err := ParseFlag(AppendFlag(nil, ConnectToPortError))
	if err != nil || got != ConnectToPortError {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, {2}, {0, 0, 0, 2, 0}} {
		if _, err := ParseFlag(bad); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestOpenDataChannelJSON(t *testing.T) {
	open := OpenDataChannel{
		MessageSchemaVersion: OpenSchemaVersion, RequestID: "r", TokenValue: "t", ClientID: "c", ClientVersion: "1.3.0.0",
	}
	text := marshal(t, open)
	checkField(t, "json", string(text),
		`{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"t","ClientId":"c","ClientVersion":"1.3.0.0"}`)
	back, err := ParseOpenDataChannel(text)
	if err != nil || back != open {
		t.Errorf("got %+v, %v", back, err)
	}
}

// FuzzPayloads holds every JSON payload to decode∘encode being the identity.
func FuzzPayloads(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add(v.payload(f))
	}
	f.Add([]byte(`{"Challenge":"AAEC"}`))
	f.Add([]byte(`{"MessageSchemaVersion":"1.0","TokenValue":"t"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		roundTrip(t, payload, ParseHandshakeComplete)
		roundTrip(t, payload, ParseEncryptionChallenge)
		roundTrip(t, payload, ParseTerminalSize)
		roundTrip(t, payload, ParseChannelClosed)
		roundTrip(t, payload, ParseOpenDataChannel)
		ParseHandshakeResponse(payload)
		if request, err := ParseHandshakeRequest(payload); err == nil {
			for _, action := range request.RequestedClientActions {
				action.SessionType()
				action.KMS()
			}
		}
		if flag, err := ParseFlag(payload); err == nil {
			checkField(t, "flag", string(AppendFlag(nil, flag)), string(payload))
		}
	})
}

func roundTrip[T any](t *testing.T, payload []byte, parse func([]byte) (T, error)) {
	t.Helper()
	first, err := parse(payload)
	if err != nil {
		return
	}
	second, err := parse(marshal(t, first))
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Fatalf("%+v came back as %+v, %v", first, second, err)
	}
}
