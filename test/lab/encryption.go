package lab

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

const (
	keyHalf           = 32          // bytes of AES-256; a data key has two halves
	contextRandom     = 16          // random bytes of the challenge in the encryption context
	challengeLength   = 64          // random bytes of the challenge on the channel (datachannel.go: sendEncryptionChallenge)
	challengeInSince  = "3.3.808.0" // the first agents that bind a challenge to the data key; about
	nonceWords        = 3
	errNoDataKey      = agentText("Encryption failed: the client sent no data key")
	errNoChallenge    = agentText("Encryption failed: the client does not support the KMS challenge")
	errWrongChallenge = agentText("Encryption failed: the challenge was not answered with the session's key")
)

// A blockCipher is the agent's (session/crypto/blockcipher.go): AES-256-GCM, a payload being nonce,
// ciphertext and tag. Nonces count up from a random start (nonce.go).
type blockCipher struct {
	ours, theirs cipher.AEAD
	nonce        [4 * nonceWords]byte
}

// newBlockCipher takes a data key: its first half is for what the agent sends.
func newBlockCipher(key []byte) (*blockCipher, error) {
	if len(key) != 2*keyHalf {
		return nil, errNoDataKey
	}
	b := new(blockCipher)
	rand.Read(b.nonce[:])
	for aead, half := range map[*cipher.AEAD][]byte{&b.ours: key[:keyHalf], &b.theirs: key[keyHalf:]} {
		block, err := aes.NewCipher(half)
		if err != nil {
			return nil, err
		}
		if *aead, err = cipher.NewGCM(block); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// step makes the next nonce: three words, little-endian, with carry.
func (b *blockCipher) step() {
	for i := range nonceWords {
		word := b.nonce[4*i:]
		n := binary.LittleEndian.Uint32(word) + 1
		binary.LittleEndian.PutUint32(word, n)
		if n != 0 {
			return
		}
	}
}

// encrypt is called by one goroutine at a time.
func (b *blockCipher) encrypt(plain []byte) []byte {
	b.step()
	return b.ours.Seal(append([]byte(nil), b.nonce[:]...), b.nonce[:], plain, nil)
}

func (b *blockCipher) decrypt(sealed []byte) ([]byte, error) {
	n := b.theirs.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("payload shorter than its nonce")
	}
	return b.theirs.Open(nil, sealed[:n], sealed[n:], nil)
}

// encrypts says whether the session asks for encryption (sessionplugin.go: isEncryptionEnabled): never
// for ports.
func (w *worker) encrypts() bool {
	return w.lab.opts.Encrypt && w.session.kind() != agentmsg.PortSession
}

// keyAction is what the handshake asks for: a data key under the account's key.
func (w *worker) keyAction() (agentmsg.RequestedAction, error) {
	p := agentmsg.KMSParameters{KMSKeyID: w.lab.kms.arn}
	if compareVersions(w.lab.opts.AgentVersion, challengeInSince) >= 0 {
		random := make([]byte, contextRandom)
		rand.Read(random)
		p.Challenge = base64.StdEncoding.EncodeToString(random)
	}
	w.hs.contextChallenge = p.Challenge
	parameters, err := json.Marshal(p)
	return agentmsg.RequestedAction{ActionType: agentmsg.KMSEncryptionAction, ActionParameters: parameters}, err
}

// encrypt takes the data key out of the client's answer, and has the client prove that it holds it
// (datachannel.go: finalizeKMSEncryption, sendEncryptionChallenge).
func (w *worker) encrypt(r agentmsg.HandshakeResponse) error {
	result, err := keyResult(r)
	if err != nil {
		return err
	}
	bound := map[string]string{"aws:ssm:SessionId": w.session.id, "aws:ssm:TargetId": w.session.target}
	switch {
	case result.ChallengeAcknowledgement:
		bound["aws:ssm:RandomChallenge"] = w.hs.contextChallenge
	case w.lab.opts.RequireChallenge:
		return errNoChallenge
	}
	key, err := w.lab.kms.decrypt(result.KMSCipherTextKey, bound)
	if err != nil {
		return agentText("Encryption failed: fetching the data key: " + err.Error())
	}
	crypt, err := newBlockCipher(key)
	if err != nil {
		return err
	}
	return w.challenge(crypt)
}

// keyResult finds the client's answer to the key action.
func keyResult(r agentmsg.HandshakeResponse) (agentmsg.KMSResult, error) {
	var result agentmsg.KMSResult
	for _, a := range r.ProcessedClientActions {
		if a.ActionType != agentmsg.KMSEncryptionAction {
			continue
		}
		text, err := json.Marshal(a.ActionResult)
		if err == nil {
			err = json.Unmarshal(text, &result)
		}
		return result, err
	}
	return result, errNoDataKey
}

// challenge sends random bytes and awaits them back under the client's half of the key. From here
// on both sides encrypt.
func (w *worker) challenge(crypt *blockCipher) error {
	random := make([]byte, challengeLength)
	rand.Read(random)
	w.crypt.Store(crypt)
	if err := w.sendJSON(agentmsg.EncChallengeRequest, agentmsg.EncryptionChallenge{Challenge: crypt.encrypt(random)}); err != nil {
		return err
	}
	timer := time.NewTimer(w.lab.opts.Timing.Handshake)
	defer timer.Stop()
	select {
	case answer := <-w.hs.challenges:
		plain, err := crypt.decrypt(answer)
		if err != nil || subtle.ConstantTimeCompare(plain, random) != 1 {
			return w.wrongChallenge(timer)
		}
		return nil
	case <-timer.C:
		return errHandshake
	case <-w.cancel:
		return errCancelled
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// wrongChallenge does what the agent does: its waiter is not told, so that the session ends by the
// handshake's limit.
func (w *worker) wrongChallenge(limit *time.Timer) error {
	select {
	case <-limit.C:
		return errWrongChallenge
	case <-w.cancel:
		return errCancelled
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
}

// sendOutput sends output of a command, encrypted where the session is.
func (w *worker) sendOutput(payloadType agentmsg.PayloadType, payload []byte) {
	if len(payload) == 0 {
		return
	}
	w.sealMu.Lock()
	defer w.sealMu.Unlock()
	if crypt := w.crypt.Load(); crypt != nil {
		payload = crypt.encrypt(payload)
	}
	w.out.send(payloadType, payload)
}

// reveal decrypts input. Sizes, flags and the handshake are never encrypted.
func (w *worker) reveal(m input) (input, error) {
	crypt := w.crypt.Load()
	if crypt == nil || m.payloadType != agentmsg.Output {
		return m, nil
	}
	plain, err := crypt.decrypt(m.payload)
	m.payload = plain
	return m, err
}
