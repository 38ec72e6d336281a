package channel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"ssm-ssh/ssmchannel"
	"ssm-ssh/test/lab"
)

// shellRound types a command into a shell and reads its answer.
func shellRound(t *testing.T, conn *ssmchannel.Conn, command, want string) {
	t.Helper()
	if _, err := io.WriteString(conn, command+"\n"); err != nil {
		t.Fatal(err)
	}
	awaitOutput(t, conn, want)
}

// awaitOutput reads until a text has come.
func awaitOutput(t *testing.T, conn *ssmchannel.Conn, want string) {
	t.Helper()
	var seen strings.Builder
	buf := make([]byte, 4096)
	conn.SetReadDeadline(time.Now().Add(limit))
	for !strings.Contains(seen.String(), want) {
		n, err := conn.Read(buf)
		seen.Write(buf[:n])
		if err != nil {
			t.Fatalf("no %q in %q: %v", want, seen.String(), err)
		}
	}
}

func TestEncryptedShell(t *testing.T) {
	tests := []struct {
		name string
		opts lab.Options
	}{
		{"present agent", lab.Options{Encrypt: true}},
		{"agent that insists on the challenge", lab.Options{Encrypt: true, RequireChallenge: true}},
		{"agent without challenge", lab.Options{Encrypt: true, AgentVersion: "3.2.815.0"}},
		{"lossy", lab.Options{Encrypt: true, Faults: lab.FaultSet{
			Up: lab.PathFaults{Data: lab.MessageFaults{Loss: 0.1, Dup: 0.1, Reorder: 0.1}}, Down: lab.PathFaults{Data: lab.MessageFaults{Loss: 0.1, Dup: 0.1}}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newSmokeRig(t, tt.opts)
			conn := r.open("", nil)
			if conn.SessionType() != "Standard_Stream" {
				t.Errorf("type %q", conn.SessionType())
			}
			shellRound(t, conn, "echo sum-$((40+2))", "sum-42")
			r.lab.Faults().CutClients() // the key outlives the websocket
			shellRound(t, conn, "echo sum-$((50+3))", "sum-53")
			shellRound(t, conn, "exit", "exit")
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Error(err)
			}
			r.awaitNoSession()
			if n := r.lab.Counts().DataKeys; n != 1 {
				t.Errorf("%d data keys", n)
			}
		})
	}
}

func TestEncryptionErrors(t *testing.T) {
	api := func(r *rig) func(context.Context, string, map[string]string) ([]byte, []byte, error) {
		return r.api.GenerateDataKey
	}
	tests := []struct {
		name   string
		change func(*rig, *ssmchannel.Config)
		want   string
	}{
		{"not configured", func(_ *rig, c *ssmchannel.Config) { c.GenerateDataKey = nil }, "not configured"},
		{"refused by KMS", func(r *rig, _ *ssmchannel.Config) {
			r.lab.Faults().FailAPI("GenerateDataKey", "AccessDeniedException", 0)
		},
			"kms:GenerateDataKey on the key"},
		{"no such key", func(r *rig, c *ssmchannel.Config) {
			c.GenerateDataKey = func(ctx context.Context, _ string, bound map[string]string) ([]byte, []byte, error) {
				return api(r)(ctx, "another", bound)
			}
		}, "NotFoundException"},
		{"another target", func(_ *rig, c *ssmchannel.Config) { c.TargetID = "mi-0" }, "fetching the data key"},
		{"wrong halves", func(r *rig, c *ssmchannel.Config) {
			c.GenerateDataKey = func(ctx context.Context, id string, bound map[string]string) ([]byte, []byte, error) {
				key, sealed, err := api(r)(ctx, id, bound)
				return append(bytes.Clone(key[32:]), key[:32]...), sealed, err
			}
		}, "challenge cannot be decrypted"},
		{"changed ciphertext of the key", func(r *rig, c *ssmchannel.Config) {
			c.GenerateDataKey = func(ctx context.Context, id string, bound map[string]string) ([]byte, []byte, error) {
				key, sealed, err := api(r)(ctx, id, bound)
				sealed[len(sealed)-1] ^= 1
				return key, sealed, err
			}
		}, "InvalidCiphertextException"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, lab.Options{Encrypt: true})
			cfg := r.config()
			tt.change(r, &cfg)
			began := time.Now()
			_, err := r.dial("", nil, cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
			if d := time.Since(began); d > 8*time.Second {
				t.Errorf("it took %v", d)
			}
			if tt.name == "not configured" && !errors.Is(err, ssmchannel.ErrEncryption) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPortIsNeverEncrypted(t *testing.T) {
	r := newSmokeRig(t, lab.Options{Encrypt: true})
	conn := r.open("AWS-StartSSHSession", nil)
	awaitOutput(t, conn, "SSH-2.0-")
	if n := r.lab.Counts().DataKeys; n != 0 {
		t.Errorf("%d data keys", n)
	}
}
