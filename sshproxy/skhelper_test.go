package sshproxy

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// skDummy is the library with which OpenSSH tests security keys: a token in software (Debian's openssh-tests).
const skDummy = "/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"

// TestSecurityKeys logs in with keys whose private half only OpenSSH's helper can use.
func TestSecurityKeys(t *testing.T) {
	testenv.Need(t, "ssh-keygen")
	if _, err := os.Stat(skDummy); err != nil {
		testenv.Missing(t, err.Error()+": apt-get install openssh-tests")
	}
	n := startNode(t, nodeOptions{})
	dir := t.TempDir()
	newKey := func(kind, name string) (string, ssh.PublicKey) {
		file := filepath.Join(dir, kind+name)
		if out, err := exec.Command("ssh-keygen", "-q", "-w", skDummy, "-t", kind, "-N", "", "-f", file).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		return file, loadPublic(file)
	}
	for _, kind := range []string{"ed25519-sk", "ecdsa-sk"} {
		plain, public := newKey(kind, "plain")
		n.authorize(t, public)
		certified, certKey := newKey(kind, "certified")
		n.certify(t, certified+"-cert.pub", certKey)
		for _, tt := range []struct {
			name, file, provider, log string
			works                     bool
		}{
			{name: "key", file: plain, provider: skDummy, works: true},
			{name: "certificate", file: certified, provider: skDummy, works: true},
			{name: "no library", file: plain},
			{name: "no token", file: plain, provider: "internal",
				log: "sign_and_send_pubkey: signing failed for " + keyTypeName(public) + " \"" + plain + "\": device not found"},
		} {
			t.Run(kind+" "+tt.name, func(t *testing.T) {
				var log logBook
				cfg := n.clientConfig(&log)
				cfg.IdentityFile, cfg.SecurityKeyProvider, cfg.BatchMode = []Identity{{Path: tt.file, Explicit: true}}, tt.provider, true
				c, err := NewClient(testContext(t), n.dial(t), cfg)
				if err == nil {
					c.Close()
				}
				if (err == nil) != tt.works || log.text() != tt.log {
					t.Errorf("got %v, log %q", err, log.text())
				}
			})
		}
	}
}

func skFrame(body ...any) []byte {
	var payload []byte
	for _, b := range body {
		payload = append(payload, ssh.Marshal(b)...)
	}
	return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload)+1)), skVersion), payload...)
}

type (
	skNumber struct{ N uint32 }
	skBytes  struct{ B []byte }
)

func TestSKReply(t *testing.T) {
	signature := ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: []byte("blob"), Rest: []byte{1, 0, 0, 0, 7}}
	good := skFrame(skNumber{skSign}, skBytes{ssh.Marshal(signature)})
	got, err := parseSKReply(good)
	if err != nil || !bytes.Equal(ssh.Marshal(got), ssh.Marshal(signature)) {
		t.Errorf("got %v, %v", got, err)
	}
	for want, frame := range map[string][]byte{
		"device not found": skFrame(skNumber{skError}, skNumber{skNoDevice}),
		"incorrect passphrase supplied to decrypt private key": skFrame(skNumber{skError}, skNumber{skWrongPIN}),
		"requested feature not supported":                      skFrame(skNumber{skError}, skNumber{skUnsupported}),
		"security key error 1":                                 skFrame(skNumber{skError}, skNumber{1}),
		"invalid format":                                       good[:len(good)-1],
	} {
		if got, err := parseSKReply(frame); err == nil || err.Error() != want {
			t.Errorf("got %v, %v, want %s", got, err, want)
		}
	}
}

// TestSecurityKeyWantsAPIN has a helper that signs only for those who know the PIN.
func TestSecurityKeyWantsAPIN(t *testing.T) {
	dir := t.TempDir()
	signature := ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: []byte("blob")}
	writeFile(t, filepath.Join(dir, "yes"), string(skFrame(skNumber{skSign}, skBytes{ssh.Marshal(signature)})), 0o600)
	writeFile(t, filepath.Join(dir, "no"), string(skFrame(skNumber{skError}, skNumber{skWrongPIN})), 0o600)
	helper := filepath.Join(dir, "helper")
	writeFile(t, helper, "#!/bin/sh\ncd "+dir+"\nif grep -q 1234; then cat yes; else cat no; fi\n", 0o700)
	t.Setenv("SSH_SK_HELPER", helper)
	_, public := newSigner(t, "ed25519")
	for _, tt := range []struct {
		pin   string
		batch bool
		asked int
		works bool
	}{{pin: "1234", asked: 1, works: true}, {pin: "0000", asked: 1}, {batch: true}} {
		var log logBook
		user := &answers{queue: []string{tt.pin}}
		cfg := Config{Prompt: user, Logf: log.logf, BatchMode: tt.batch}.withDefaults()
		key := &securityKey{ctx: t.Context(), cfg: &cfg, path: "file", public: public}
		got, err := key.Sign(nil, []byte("data"))
		if (err == nil) != tt.works || tt.works && string(got.Blob) != "blob" {
			t.Errorf("%+v: got %v, %v", tt, got, err)
		}
		if asked := user.prompts(); len(asked) != tt.asked || tt.asked > 0 && asked[0] != "Enter PIN for ED25519 key file: " {
			t.Errorf("%+v: asked %q", tt, asked)
		}
	}
}

func FuzzSKReply(f *testing.F) {
	f.Add(skFrame(skNumber{skError}, skNumber{skNoDevice}))
	f.Add(skFrame(skNumber{skSign}, skBytes{ssh.Marshal(ssh.Signature{Format: "f", Blob: []byte("b")})}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if signature, err := parseSKReply(frame); (signature == nil) == (err == nil) {
			t.Errorf("got %v, %v", signature, err)
		}
	})
}
