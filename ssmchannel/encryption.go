package ssmchannel

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"ssm-ssh/ssmchannel/agentmsg"
)

const (
	// dataKeyBytes is the length of a session's data key: 32 bytes for what the
	// agent sends, then 32 for what we send (plugin: encryption/encrypter.go,
	// kmsservice.go, KMSKeySizeInBytes).
	dataKeyBytes = 64
	// challengeBytes is the length of the agent's random challenge (agent:
	// session/datachannel/datachannel.go, sendEncryptionChallenge).
	challengeBytes = 64
)

// Names in the encryption context, which binds a data key to its session: KMS
// decrypts it for the agent under the same names and values only (plugin:
// encryption/encrypter.go; agent: session/crypto/blockcipher.go).
const (
	contextSession   = "aws:ssm:SessionId"
	contextTarget    = "aws:ssm:TargetId"
	contextChallenge = "aws:ssm:RandomChallenge"
)

var errUndecryptable = errors.New("cannot be decrypted: wrong key, or changed on its way")

// blockCipher encrypts what we send and decrypts what the agent sends: AES-256-GCM
// without additional data, a payload being nonce, ciphertext and tag. Nonces are
// random, as the plugin's; GCM allows 2³² of them a key, which is 4 TB of data.
type blockCipher struct {
	ours, theirs cipher.AEAD
	plain        []byte // of decrypt; Conn.mu guards it
	sealed       []byte // of encrypt; Conn.writeMu guards it
}

// newBlockCipher splits a data key. The key stays the caller's, to be erased.
func newBlockCipher(key []byte) (*blockCipher, error) {
	if len(key) != dataKeyBytes {
		return nil, fmt.Errorf("data key has %d bytes, not %d", len(key), dataKeyBytes)
	}
	theirs, err := newAEAD(key[:dataKeyBytes/2])
	if err != nil {
		return nil, err
	}
	ours, err := newAEAD(key[dataKeyBytes/2:])
	if err != nil {
		return nil, err
	}
	return &blockCipher{ours: ours, theirs: theirs}, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// overhead is what encryption adds to a payload; nothing when there is none.
func (b *blockCipher) overhead() int {
	if b == nil {
		return 0
	}
	return b.ours.Overhead()
}

// encrypt returns the payload to send, valid until the next call.
func (b *blockCipher) encrypt(plain []byte) []byte {
	b.sealed = b.ours.Seal(b.sealed[:0], nil, plain, nil)
	return b.sealed
}

// decrypt returns what the agent has encrypted, valid until the next call.
func (b *blockCipher) decrypt(sealed []byte) ([]byte, error) {
	plain, err := b.theirs.Open(b.plain[:0], nil, sealed, nil)
	if err != nil {
		return nil, errUndecryptable
	}
	b.plain = plain
	return plain, nil
}

// encrypted reports whether the agent encrypts payloads of this type once it
// encrypts at all; sizes, flags and the handshake stay plain.
func encrypted(kind agentmsg.PayloadType) bool {
	return kind == agentmsg.Output || kind == agentmsg.StdErr || kind == agentmsg.ExitCode
}

// keyRequest is a handshake response that waits for a data key.
type keyRequest struct {
	parameters agentmsg.KMSParameters
	response   agentmsg.HandshakeResponse
	action     int // index of the response's KMSEncryption entry
}

// supplyKey gets the data key that the handshake asks for and sends the response.
// It runs on Dial's goroutine, since it takes a call to KMS.
func (c *Conn) supplyKey(ctx context.Context) {
	c.mu.Lock()
	r := c.shake.wanted
	c.mu.Unlock()
	result, crypt, err := c.newDataKey(ctx, r.parameters)
	answer := &r.response.ProcessedClientActions[r.action]
	answer.ActionStatus, answer.ActionResult = agentmsg.ActionSuccess, result
	if err != nil {
		// The agent cancels the session and may show this text; the cause is ours.
		answer.ActionStatus, answer.ActionResult = agentmsg.ActionFailed, nil
		answer.Error = "the client has no data key for the session"
		err = fmt.Errorf("session asks for KMS encryption: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shake.crypt = crypt
	if sendErr := c.respond(r.response); err == nil {
		err = sendErr
	}
	if err != nil {
		c.endHandshake(err)
	}
}

// newDataKey calls KMS. The plaintext key is erased before it returns.
func (c *Conn) newDataKey(ctx context.Context, p agentmsg.KMSParameters) (*agentmsg.KMSResult, *blockCipher, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })()
	bound := map[string]string{contextSession: c.session.ID, contextTarget: c.cfg.TargetID}
	if p.Challenge != "" {
		bound[contextChallenge] = p.Challenge
	}
	key, sealed, err := c.cfg.GenerateDataKey(ctx, p.KMSKeyID, bound)
	defer clear(key)
	if err != nil {
		return nil, nil, err
	}
	crypt, err := newBlockCipher(key)
	if err != nil {
		return nil, nil, err
	}
	c.cfg.Logf(1, "ssmchannel: session is encrypted with a data key of %s", p.KMSKeyID)
	return &agentmsg.KMSResult{KMSCipherTextKey: sealed, ChallengeAcknowledgement: p.Challenge != ""}, crypt, nil
}

// answerChallenge proves to the agent that we hold the key, and finds out whether
// it does. It answers once and only what has a challenge's length: otherwise
// whoever sits between could have the agent's own messages encrypted as ours.
// c.mu is held.
func (c *Conn) answerChallenge(payload []byte) error {
	if c.shake.crypt == nil || c.shake.complete || c.shake.challenged {
		c.cfg.Logf(1, "ssmchannel: ignoring an encryption challenge")
		return nil
	}
	c.shake.challenged = true
	challenge, err := agentmsg.ParseEncryptionChallenge(payload)
	if err != nil {
		return err
	}
	plain, err := c.shake.crypt.decrypt(challenge.Challenge)
	if err == nil && len(plain) != challengeBytes {
		err = fmt.Errorf("has %d bytes, not %d", len(plain), challengeBytes)
	}
	if err != nil {
		c.endHandshake(fmt.Errorf("encryption: the agent's challenge %w", err))
		return nil
	}
	challenge.Challenge = c.shake.crypt.ours.Seal(nil, nil, plain, nil)
	answer, err := agentmsg.MarshalPayload(challenge)
	if err != nil {
		return err
	}
	c.out.push(c.newFrame(agentmsg.EncChallengeResponse, answer))
	signal(c.sendable)
	return nil
}
