package sshproxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/tty"
)

// securityKey is a key whose private half is in a FIDO token: its file holds a handle, with which the token signs.
// It is talked to by OpenSSH's own helper program, which loads the provider's library (ssh-sk-client.c).
type securityKey struct {
	ctx     context.Context // the life of one handshake
	cfg     *Config
	path    string
	public  ssh.PublicKey
	private []byte // as the helper wants it (sshkey.c, sshkey_private_serialize)
	touch   bool   // it signs only when it is touched
}

// Numbers of ssh-sk-helper's protocol (ssh-sk.h), one request and answer a process.
const (
	skVersion  = 5
	skError    = 0
	skSign     = 1
	skLogLevel = 3               // INFO (log.h)
	maxSKReply = 256 * 1024      // msg.c
	skGrace    = 5 * time.Second // for a helper that is told to end
)

// Errors that the helper gives, negated (ssherr.h).
const (
	skWrongPIN    = 43
	skUnsupported = 59
	skNoDevice    = 60
)

// skTouchFlag is SSH_SK_USER_PRESENCE_REQD (sk-api.h).
const skTouchFlag = 0x01

// skHelpers are the places where systems put the helper; $SSH_SK_HELPER comes first.
var skHelpers = []string{"/usr/lib/openssh/ssh-sk-helper", "/usr/libexec/ssh-sk-helper", "/usr/libexec/openssh/ssh-sk-helper",
	"/usr/lib/ssh/ssh-sk-helper", "/opt/homebrew/libexec/ssh-sk-helper"}

func isSecurityKey(key ssh.PublicKey) bool { return strings.HasPrefix(key.Type(), "sk-") }

// parseSecurityKey reads a security key's file, which must not be encrypted; nil where it is none.
func parseSecurityKey(data []byte) *securityKey {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "OPENSSH PRIVATE KEY" {
		return nil
	}
	defer clear(block.Bytes)
	header, ok := parseKeyEnvelope(block.Bytes)
	if !ok || header.Cipher != "none" {
		return nil
	}
	// uint32 check, uint32 check, key, string comment, padding (PROTOCOL.key section 3).
	const checks = 8
	public, err := ssh.ParsePublicKey(bytes.Clone(header.PublicKey))
	if err != nil || !isSecurityKey(public) || len(header.Private) < checks ||
		!bytes.Equal(header.Private[:checks/2], header.Private[checks/2:checks]) {
		return nil
	}
	private := header.Private[checks:]
	rest, flags, ok := cutSecurityKey(private, public.Type() == ssh.KeyAlgoSKECDSA256)
	if !ok {
		return nil
	}
	return &securityKey{public: public, private: bytes.Clone(private[:len(private)-len(rest)]), touch: flags&skTouchFlag != 0}
}

// cutSecurityKey returns what follows a private key (PROTOCOL.u2f, section SSH U2F Key formats).
func cutSecurityKey(private []byte, ecdsa bool) (rest []byte, flags byte, ok bool) {
	if ecdsa {
		var key struct {
			Type, Curve, Point, Application string
			Flags                           byte
			Handle, Reserved                []byte
			Rest                            []byte `ssh:"rest"`
		}
		err := ssh.Unmarshal(private, &key)
		return key.Rest, key.Flags, err == nil
	}
	var key struct {
		Type, Public, Application string
		Flags                     byte
		Handle, Reserved          []byte
		Rest                      []byte `ssh:"rest"`
	}
	err := ssh.Unmarshal(private, &key)
	return key.Rest, key.Flags, err == nil
}

func (k *securityKey) PublicKey() ssh.PublicKey { return k.public }

func (k *securityKey) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(nil, data, k.public.Type())
}

// SignWithAlgorithm has the token sign; a token that wants a PIN is asked again with the user's (sshconnect2.c,
// identity_sign). A key of this kind has one algorithm.
func (k *securityKey) SignWithAlgorithm(_ io.Reader, data []byte, _ string) (*ssh.Signature, error) {
	name := keyTypeName(k.public)
	done := k.askForTouch(name)
	signature, err := k.sign(data, "")
	if errors.Is(err, skFailure(skWrongPIN)) && !k.cfg.BatchMode {
		pin, askErr := k.cfg.Prompt.Secret(k.ctx, fmt.Sprintf("Enter PIN for %s key %s: ", name, k.path))
		if askErr != nil {
			return nil, askErr
		}
		done = k.askForTouch(name)
		signature, err = k.sign(data, pin)
	}
	if err != nil {
		k.cfg.Logf(-1, "sign_and_send_pubkey: signing failed for %s %q: %v", name, k.path, err)
		return nil, err
	}
	done()
	return signature, nil
}

// askForTouch tells the user that the token waits, where somebody sees stderr (readpass.c, notify_start). done says
// that it was touched.
func (k *securityKey) askForTouch(name string) (done func()) {
	if !k.touch || k.cfg.BatchMode || !tty.IsTerminal(int(os.Stderr.Fd())) {
		return func() {}
	}
	fmt.Fprintf(os.Stderr, "\rConfirm user presence for key %s %s\r\n", name, ssh.FingerprintSHA256(k.public))
	return func() { fmt.Fprint(os.Stderr, "\rUser presence confirmed\r\n") }
}

// sign runs the helper once.
func (k *securityKey) sign(data []byte, pin string) (*ssh.Signature, error) {
	request := ssh.Marshal(struct {
		Type        uint32
		LogOnStderr bool
		LogLevel    uint32
		Key         []byte
		Provider    string
		Data        []byte
		Algorithm   string
		Compat      uint32
		PIN         string
	}{skSign, true, skLogLevel, k.private, k.cfg.SecurityKeyProvider, data, "", 0, pin})
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(request)+1)), skVersion)
	cmd := exec.CommandContext(k.ctx, skHelper())
	cmd.WaitDelay = skGrace
	cmd.Stdin, cmd.Stderr = bytes.NewReader(append(frame, request...)), os.Stderr
	out := &cappedBuffer{room: maxSKReply}
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		k.cfg.Logf(1, "ssh-sk-helper: %v", err)
		return nil, errors.New("agent refused operation") // SSH_ERR_AGENT_FAILURE, for want of a better one
	}
	return parseSKReply(out.Bytes())
}

// skHelper returns the path of the helper program.
func skHelper() string {
	if named := os.Getenv("SSH_SK_HELPER"); named != "" {
		return named
	}
	for _, path := range skHelpers {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return skHelpers[0]
}

// parseSKReply reads the helper's answer: uint32 length, byte version, uint32 type, string signature, or with type
// skError uint32 error.
func parseSKReply(frame []byte) (*ssh.Signature, error) {
	errInvalid := errors.New("invalid format")
	if len(frame) < 9 || uint64(binary.BigEndian.Uint32(frame)) != uint64(len(frame)-4) || frame[4] != skVersion {
		return nil, errInvalid
	}
	kind, body := binary.BigEndian.Uint32(frame[5:]), frame[9:]
	switch {
	case kind == skError && len(body) == 4:
		return nil, skFailure(binary.BigEndian.Uint32(body))
	case kind != skSign:
		return nil, errInvalid
	}
	var reply struct{ Signature []byte }
	signature := new(ssh.Signature)
	if ssh.Unmarshal(body, &reply) != nil || ssh.Unmarshal(reply.Signature, signature) != nil {
		return nil, errInvalid
	}
	return signature, nil
}

// skFailure is an error of the helper's.
type skFailure uint32

// Error returns OpenSSH's words (ssherr.c).
func (f skFailure) Error() string {
	switch f {
	case skWrongPIN:
		return "incorrect passphrase supplied to decrypt private key"
	case skUnsupported:
		return "requested feature not supported"
	case skNoDevice:
		return "device not found"
	}
	return fmt.Sprintf("security key error %d", uint32(f))
}

// cappedBuffer is a buffer that takes no more than it has room for.
type cappedBuffer struct {
	bytes.Buffer
	room int
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.room {
		return 0, io.ErrShortBuffer
	}
	return b.Buffer.Write(p)
}
