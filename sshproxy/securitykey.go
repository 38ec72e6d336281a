package sshproxy

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"math/big"

	"golang.org/x/crypto/ssh"
)

// securityKeyAlgorithms are those of host keys that live in a security key. x/crypto/ssh verifies what they
// sign, though it doesn't name them as a client's, where somebody was present; sshd takes care that nobody has
// to be (its main clears SSH_SK_USER_PRESENCE_REQD), unless an agent signs for it.
var securityKeyAlgorithms = []string{ssh.CertAlgoSKED25519v01, ssh.CertAlgoSKECDSA256v01, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256}

var errBadSignature = errors.New("incorrect signature")

// verifyHostSignature is key.Verify for a host: of a security key nobody's presence is asked for.
func verifyHostSignature(key ssh.PublicKey, data []byte, sig *ssh.Signature) error {
	switch key.Type() {
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return verifySecurityKey(key, data, sig)
	}
	return key.Verify(data, sig)
}

// verifySecurityKey checks what a security key signs: the hashes of its application's name and of the data
// about its own flags and counter (OpenSSH's PROTOCOL.u2f, "SSH U2F signatures").
func verifySecurityKey(key ssh.PublicKey, data []byte, sig *ssh.Signature) error {
	outer, ok := key.(ssh.CryptoPublicKey)
	application, found := lastString(key.Marshal())
	const flagsAndCounter = 1 + 4
	if !ok || !found || sig.Format != key.Type() || len(sig.Rest) != flagsAndCounter {
		return errBadSignature
	}
	name, message := sha256.Sum256(application), sha256.Sum256(data)
	signed := append(append(name[:], sig.Rest...), message[:]...)
	switch public := outer.CryptoPublicKey().(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(public, signed, sig.Blob)
	case *ecdsa.PublicKey:
		var pair struct{ R, S *big.Int }
		sum := sha256.Sum256(signed)
		ok = ssh.Unmarshal(sig.Blob, &pair) == nil && ecdsa.Verify(public, sum[:], pair.R, pair.S)
	default:
		ok = false
	}
	if !ok {
		return errBadSignature
	}
	return nil
}

// lastString is the last of a key's strings.
func lastString(blob []byte) (last []byte, ok bool) {
	for len(blob) > 0 {
		if last, blob, ok = cutString(blob); !ok {
			return nil, false
		}
	}
	return last, ok
}
