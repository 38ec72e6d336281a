package sshproxy

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// muxSamples are frames captured between OpenSSH's own clients and masters (9.2 and 10.5).
var muxSamples = []struct {
	name    string
	reply   bool
	wire    string // hex, length included
	message muxMessage
}{
	{name: "hello", wire: "00000008 00000001 00000004", message: &helloMessage{Version: 4}},
	{name: "hello with an extension", reply: true, wire: "00000015 00000001 00000004 00000004 696e666f 00000001 30",
		message: &helloMessage{Version: 4, Extensions: []Extension{{Name: "info", Value: "0"}}}},
	{name: "alive check", wire: "00000008 10000004 00000000", message: &plainMessage{Kind: muxAliveCheck}},
	{name: "alive", reply: true, wire: "0000000c 80000005 00000000 0000201f", message: &numberMessage{Kind: muxAlive, Number: 8223}},
	{name: "new session",
		wire: "00000058 10000002 00000001 00000000 00000000 00000000 00000000 00000000 0000007e 00000005 787465726d" +
			"0000001e 6563686f206f75743b206563686f20657272203e26323b20657869742037 00000009 464f4f5f413d626172",
		message: &newSessionMessage{ID: 1, Escape: '~', Term: "xterm", Command: "echo out; echo err >&2; exit 7", Env: []string{"FOO_A=bar"}}},
	{name: "session opened", reply: true, wire: "0000000c 80000006 00000001 00000002",
		message: &numberMessage{Kind: muxSessionOpened, ID: 1, Number: 2}},
	{name: "exit message", reply: true, wire: "0000000c 80000004 00000002 00000007", message: &numberMessage{Kind: muxExit, ID: 2, Number: 7}},
	{name: "local forward",
		wire: "00000025 10000006 00000000 00000001 00000000 0000a7f9 00000009 6c6f63616c686f7374 0000a4ee",
		message: &forwardMessage{Kind: muxOpenForward, Forward: muxForwardLocal, ListenPort: 43001,
			ConnectHost: "localhost", ConnectPort: 42222}},
	{name: "dynamic forward", wire: "00000021 10000006 00000000 00000003 00000000 0000a7fa 00000005 736f636b73 00000000",
		message: &forwardMessage{Kind: muxOpenForward, Forward: muxForwardDynamic, ListenPort: 43002, ConnectHost: "socks"}},
	{name: "close forward", wire: "00000025 10000007 00000000 00000001 00000000 0000a7f9 00000009 6c6f63616c686f7374 0000a4ee",
		message: &forwardMessage{Kind: muxCloseForward, Forward: muxForwardLocal, ListenPort: 43001,
			ConnectHost: "localhost", ConnectPort: 42222}},
	{name: "remote port", reply: true, wire: "0000000c 80000007 00000000 00008f13", message: &numberMessage{Kind: muxRemotePort, Number: 36627}},
	{name: "failure", reply: true, wire: "0000001e 80000003 00000000 00000012 706f7274206e6f7420666f72776172646564",
		message: &refusalMessage{Kind: muxFailure, Reason: "port not forwarded"}},
	{name: "stdio forward", wire: "0000001d 10000008 00000001 00000000 00000009 3132372e302e302e31 0000a4ee",
		message: &stdioMessage{ID: 1, Host: "127.0.0.1", Port: 42222}},
	{name: "stop listening", wire: "00000008 10000009 00000000", message: &plainMessage{Kind: muxStopListening}},
	{name: "ok", reply: true, wire: "00000008 80000001 00000000", message: &plainMessage{Kind: muxOK}},
	{name: "terminate", wire: "00000008 10000005 00000000", message: &plainMessage{Kind: muxTerminate}},
	{name: "proxy", wire: "00000008 1000000f 00000000", message: &plainMessage{Kind: muxProxy}},
	{name: "proxy reply", reply: true, wire: "00000008 8000000f 00000000", message: &plainMessage{Kind: muxProxyOK}},
	{name: "environment", wire: "00000010 53534d01 00000003 413d31 00000001 42", message: &environmentMessage{Env: []string{"A=1", "B"}}},
	{name: "signal", wire: "0000000b 53534d02 00000003 494e54", message: &signalMessage{Name: "INT"}},
	{name: "info request", wire: "00000014 20000001 00000000 00000008 6368616e6e656c73", message: &infoRequestMessage{What: "channels"}},
	{name: "info reply", reply: true, wire: "00000012 90000001 00000000 00000001 00000002 6f6b",
		message: &infoReplyMessage{Status: 1, Text: "ok"}},
	{name: "unknown request", wire: "00000008 1000ffff 00000007", message: &plainMessage{Kind: 0x1000ffff, ID: 7}},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func decodeMux(frame []byte, reply bool) (muxMessage, error) {
	if reply {
		return decodeReply(frame)
	}
	return decodeRequest(frame)
}

func TestMuxMessages(t *testing.T) {
	for _, tt := range muxSamples {
		t.Run(tt.name, func(t *testing.T) {
			wire := unhex(t, tt.wire)
			got, err := decodeMux(wire[4:], tt.reply)
			if err != nil || !reflect.DeepEqual(got, tt.message) {
				t.Errorf("decoded %+v, %v, want %+v", got, err, tt.message)
			}
			if back, err := encodeMux(tt.message); err != nil || hex.EncodeToString(back) != hex.EncodeToString(wire) {
				t.Errorf("encoded %x, %v, want %x", back, err, wire)
			}
		})
	}
}

func TestMuxMalformed(t *testing.T) {
	tests := []struct {
		name, frame string
		reply       bool
	}{
		{name: "empty"},
		{name: "half a kind", frame: "1000"},
		{name: "no id", frame: "10000004"},
		{name: "extension without value", frame: "00000001 00000004 00000004 696e666f"},
		{name: "string beyond the frame", frame: "80000003 00000000 ffffffff 61", reply: true},
		{name: "NUL in a command", frame: "10000002 00000001 00000000 00000000 00000000 00000000 00000000 0000007e 00000000 00000001 00"},
		{name: "session without command", frame: "10000002 00000001 00000000 00000000 00000000 00000000 00000000 0000007e 00000000"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := decodeMux(unhex(t, tt.frame), tt.reply); !errors.Is(err, errMalformed) {
				t.Errorf("got %+v, %v, want errMalformed", m, err)
			}
		})
	}
}

func TestMuxLimits(t *testing.T) {
	m := &newSessionMessage{}
	for range muxEnvLimit + 10 {
		m.Env = append(m.Env, "A=b")
	}
	got, err := decodeRequest(m.appendFrame(nil))
	if err != nil || len(got.(*newSessionMessage).Env) != muxEnvLimit {
		t.Errorf("%d variables, %v, want %d", len(got.(*newSessionMessage).Env), err, muxEnvLimit)
	}
	if _, err := encodeMux(&newSessionMessage{Command: strings.Repeat("x", muxFrameLimit)}); err == nil {
		t.Error("no error for a frame over the limit")
	}
}

func FuzzMuxMessage(f *testing.F) {
	for _, s := range muxSamples {
		f.Add(unhex(f, s.wire)[4:], s.reply)
	}
	f.Fuzz(func(t *testing.T, frame []byte, reply bool) {
		m, err := decodeMux(frame, reply)
		if err != nil {
			return
		}
		again, err := decodeMux(m.appendFrame(nil), reply)
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}
