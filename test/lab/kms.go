package lab

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"slices"
)

const (
	keyTargetPrefix = "TrentService." // X-Amz-Target of KMS
	maxDataKey      = 1024            // KMS API reference, GenerateDataKey: NumberOfBytes
	maxBlob         = 6144            // Decrypt: CiphertextBlob
)

// keyOperations are the calls to KMS that the stand-in answers (KMS API reference, by name).
var keyOperations = map[string]operation{
	"GenerateDataKey": bind((*Lab).generateDataKey),
	"Decrypt":         bind((*Lab).decryptDataKey),
}

// A keyService is a KMS with one key. What it encrypts can be decrypted only with the encryption
// context that it was encrypted with.
type keyService struct {
	id, arn string
	master  cipher.AEAD
}

func newKeyService() (keyService, error) {
	key := make([]byte, 32)
	rand.Read(key) // never fails: crypto/rand
	block, err := aes.NewCipher(key)
	if err != nil {
		return keyService{}, err
	}
	master, err := cipher.NewGCMWithRandomNonce(block)
	id := requestID()
	return keyService{id, "arn:aws:kms:" + Region + ":" + accountID + ":key/" + id, master}, err
}

// bound returns the bytes that stand for a key and an encryption context; the order of the names
// does not matter.
func (k *keyService) bound(context map[string]string) []byte {
	text, _ := json.Marshal(struct {
		Key     string
		Context map[string]string
	}{k.arn, context}) // strings can always be marshalled, and the names are sorted
	return text
}

func (k *keyService) encrypt(plain []byte, context map[string]string) []byte {
	return k.master.Seal(nil, nil, plain, k.bound(context))
}

func (k *keyService) decrypt(blob []byte, context map[string]string) ([]byte, error) {
	plain, err := k.master.Open(nil, nil, blob, k.bound(context))
	if err != nil {
		return nil, &refusal{400, "InvalidCiphertextException", ""}
	}
	return plain, nil
}

type generateRequest struct {
	KeyID             string `json:"KeyId"`
	NumberOfBytes     int
	KeySpec           string
	EncryptionContext map[string]string
}

func (l *Lab) generateDataKey(in generateRequest) (any, error) {
	if !slices.Contains([]string{l.kms.id, l.kms.arn}, in.KeyID) {
		return nil, &refusal{400, "NotFoundException", "Key '" + in.KeyID + "' does not exist"}
	}
	n := in.NumberOfBytes
	switch {
	case in.KeySpec == "AES_256" && n == 0:
		n = 32
	case in.KeySpec == "AES_128" && n == 0:
		n = 16
	}
	if n < 1 || n > maxDataKey || in.KeySpec != "" && in.NumberOfBytes != 0 {
		return nil, &refusal{400, "ValidationException", "1 validation error detected: Value at 'numberOfBytes' failed to satisfy constraint"}
	}
	l.count.dataKeys.Add(1)
	key := make([]byte, n)
	rand.Read(key)
	return map[string]any{"KeyId": l.kms.arn, "Plaintext": key, "CiphertextBlob": l.kms.encrypt(key, in.EncryptionContext)}, nil
}

type decryptRequest struct {
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

func (l *Lab) decryptDataKey(in decryptRequest) (any, error) {
	if len(in.CiphertextBlob) == 0 || len(in.CiphertextBlob) > maxBlob {
		return nil, &refusal{400, "ValidationException", "1 validation error detected: Value at 'ciphertextBlob' failed to satisfy constraint"}
	}
	plain, err := l.kms.decrypt(in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return map[string]any{"KeyId": l.kms.arn, "Plaintext": plain, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, nil
}
