package lab

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCutCharacters(t *testing.T) {
	tests := []struct {
		name, text, whole, rest string
	}{
		{"ascii", "abc", "abc", ""},
		{"complete", "aä€😀", "aä€😀", ""},
		{"cut character", "a\xf0\x9f\x98", "a", "\xf0\x9f\x98"},
		{"invalid in front", "\xffabcd", "\xffabcd", ""},
		{"invalid among the last three", "abc\xffab", "abc", "\xffab"},
		{"genuine U+FFFD loses two bytes", "\uFFFDabc", "\xefabc", ""},
		{"genuine U+FFFD at the end waits", "abc\uFFFD", "abc", "\uFFFD"},
		{"empty", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole, rest := cutCharacters([]byte(tt.text))
			if string(whole) != tt.whole || string(rest) != tt.rest {
				t.Errorf("got %q and %q", whole, rest)
			}
		})
	}
}

func TestNonceCarries(t *testing.T) {
	b := blockCipher{nonce: [12]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0}}
	b.step()
	if want := [12]byte{8: 2}; b.nonce != want {
		t.Errorf("got %x", b.nonce)
	}
}

func FuzzCutCharacters(f *testing.F) {
	f.Add([]byte("plain"), []byte("\xe2\x82"))
	f.Add([]byte("\uFFFD"), []byte("\xff"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		whole, rest := cutCharacters(first)
		if len(rest) >= utf8.UTFMax {
			t.Errorf("%d bytes wait", len(rest))
		}
		again, rest := cutCharacters(append(rest, second...))
		both := append(first, second...)
		got := append(append(whole, again...), rest...)
		if utf8.Valid(both) && !bytes.ContainsRune(both, utf8.RuneError) && !bytes.Equal(got, both) {
			t.Errorf("%q became %q", both, got)
		}
	})
}

func FuzzKeyService(f *testing.F) {
	f.Add(`{"KeyId":"1","NumberOfBytes":64,"EncryptionContext":{"a":"b"}}`)
	f.Add(`{"CiphertextBlob":"AAAA","EncryptionContext":{"a":"b"}}`)
	f.Add(`{"KeyId":"KEY","KeySpec":"AES_256"}`)
	l := new(Lab)
	var err error
	if l.kms, err = newKeyService(); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		text := []byte(strings.ReplaceAll(body, "KEY", l.kms.id))
		keyOperations["GenerateDataKey"](l, text)
		if answer, err := keyOperations["Decrypt"](l, text); err == nil {
			t.Errorf("decrypted what was never encrypted: %v", answer)
		}
	})
}

func TestDataKeyIsBoundToItsContext(t *testing.T) {
	k, err := newKeyService()
	if err != nil {
		t.Fatal(err)
	}
	context := map[string]string{"aws:ssm:SessionId": "s", "aws:ssm:TargetId": "t"}
	blob := k.encrypt([]byte("key"), context)
	if plain, err := k.decrypt(blob, context); err != nil || string(plain) != "key" {
		t.Errorf("got %q, %v", plain, err)
	}
	for name, other := range map[string]map[string]string{
		"none": nil, "less": {"aws:ssm:SessionId": "s"}, "another value": {"aws:ssm:SessionId": "s", "aws:ssm:TargetId": "u"},
		"more": {"aws:ssm:SessionId": "s", "aws:ssm:TargetId": "t", "x": "y"},
	} {
		if _, err := k.decrypt(blob, other); err == nil {
			t.Errorf("context %s: decrypted", name)
		}
	}
}
