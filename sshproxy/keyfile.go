package sshproxy

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// maxKeyFile is OpenSSH's MAX_KEY_FILE_SIZE (authfile.c).
const maxKeyFile = 1 << 20

// readKeyFile returns a key file's bytes, which the caller clears when they are private.
func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxKeyFile)
	}
	return data, err
}

// loadPublic returns the public half that goes with path: path itself as a public key, path.pub, or
// the cleartext part of a private key in OpenSSH's own format; nil where none of them tells
// (authfile.c, sshkey_load_public).
func loadPublic(path string) ssh.PublicKey {
	own, err := readKeyFile(path)
	if err == nil {
		defer clear(own)
		if key := parsePublicFile(own); key != nil {
			return key
		}
	}
	if beside, err := readKeyFile(path + ".pub"); err == nil {
		if key := parsePublicFile(beside); key != nil {
			return key
		}
	}
	return parsePrivateHeader(own)
}

// parsePublicFile returns the first key of a .pub file.
func parsePublicFile(data []byte) ssh.PublicKey {
	key, _ := parsePublicLine(data)
	return key
}

// keyComment returns the comment beside a private key, or its path where it has none. That of the private file
// itself, the same as a rule, is encrypted with the key.
func keyComment(path string) string {
	data, err := readKeyFile(path + ".pub")
	if err != nil {
		return path
	}
	_, comment := parsePublicLine(data)
	return cmp.Or(comment, path)
}

// parsePublicLine returns the first key of a .pub file, which has lines of type, base64, comment.
func parsePublicLine(data []byte) (key ssh.PublicKey, comment string) {
	for line := range bytes.Lines(data) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || fields[0][0] == '#' {
			continue
		}
		blob, err := base64.StdEncoding.DecodeString(string(fields[1]))
		if err != nil {
			continue
		}
		key, err := ssh.ParsePublicKey(blob)
		if err == nil && key.Type() == string(fields[0]) {
			return key, string(bytes.Join(fields[2:], []byte(" ")))
		}
	}
	return nil, ""
}

// privateKeyMagic begins a private key in OpenSSH's format (PROTOCOL.key).
const privateKeyMagic = "openssh-key-v1\x00"

// parsePrivateHeader returns the public key that stands in clear before the private part of an
// OpenSSH key file (PROTOCOL.key, section 1), encrypted or not.
func parsePrivateHeader(data []byte) ssh.PublicKey {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "OPENSSH PRIVATE KEY" {
		return nil
	}
	defer clear(block.Bytes)
	header, ok := parseKeyEnvelope(block.Bytes)
	if !ok {
		return nil
	}
	// A parsed key keeps the bytes it was made of; the block is cleared.
	key, err := ssh.ParsePublicKey(bytes.Clone(header.PublicKey))
	if err != nil {
		return nil
	}
	return key
}

// keyEnvelope is an OpenSSH key file of one key (PROTOCOL.key section 1).
type keyEnvelope struct {
	Cipher, KDF, KDFOptions string
	Keys                    uint32
	PublicKey               []byte
	Private                 []byte
	Rest                    []byte `ssh:"rest"`
}

// parseKeyEnvelope reads what is inside the armour. Its fields are parts of data.
func parseKeyEnvelope(data []byte) (keyEnvelope, bool) {
	var header keyEnvelope
	rest, ok := bytes.CutPrefix(data, []byte(privateKeyMagic))
	if !ok {
		return header, false
	}
	err := ssh.Unmarshal(rest, &header)
	return header, err == nil && header.Keys == 1
}

// errNoKey says that a private key could not be had; the reason has been logged.
var errNoKey = errors.New("no private key")

// loadPrivate reads a private key and asks for its passphrase when it needs one (sshconnect2.c,
// load_identity_file). The key is a *securityKey, or of a type that
// ssh.NewSignerFromKey takes.
func loadPrivate(ctx context.Context, cfg *Config, id Identity) (any, error) {
	info, err := os.Stat(id.Path)
	if err != nil {
		level := 3
		if id.Explicit {
			level = 0
		}
		cfg.Logf(level, "no such identity: %s: %s", id.Path, strerror(rootCause(err)))
		return nil, errNoKey
	}
	if tooOpen(info) {
		logTooOpen(cfg, id.Path, info.Mode())
		return nil, errNoKey
	}
	data, err := readKeyFile(id.Path)
	defer clear(data)
	if err != nil {
		cfg.Logf(-1, "Load key %q: %s", id.Path, strerror(rootCause(err)))
		return nil, errNoKey
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if _, encrypted := errors.AsType[*ssh.PassphraseMissingError](err); encrypted {
		return decryptPrivate(ctx, cfg, id.Path, data)
	}
	if token := parseSecurityKey(data); err != nil && token != nil {
		if cfg.SecurityKeyProvider == "" {
			cfg.Logf(1, "key %q is an authenticator-hosted key, but no provider specified", id.Path)
			return nil, errNoKey
		}
		token.ctx, token.cfg, token.path = ctx, cfg, id.Path
		return token, nil
	}
	if err != nil {
		cfg.Logf(1, "%s: %v", id.Path, err)
		cfg.Logf(-1, "Load key %q: invalid format", id.Path)
		return nil, errNoKey
	}
	return key, nil
}

// decryptPrivate asks until the passphrase fits; an empty one skips the key.
func decryptPrivate(ctx context.Context, cfg *Config, path string, data []byte) (any, error) {
	if cfg.BatchMode {
		return nil, errNoKey
	}
	for range cfg.NumberOfPasswordPrompts {
		answer, err := cfg.Prompt.Secret(ctx, fmt.Sprintf("Enter passphrase for key '%s': ", path))
		if err != nil {
			return nil, err
		}
		if answer == "" {
			cfg.Logf(2, "no passphrase given, try next key")
			return nil, errNoKey
		}
		passphrase := []byte(answer)
		key, err := ssh.ParseRawPrivateKeyWithPassphrase(data, passphrase)
		clear(passphrase)
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, x509.IncorrectPasswordError) {
			cfg.Logf(-1, "Load key %q: invalid format", path)
			return nil, errNoKey
		}
		cfg.Logf(2, "bad passphrase given, try again...")
	}
	return nil, errNoKey
}

// tooOpen reports whether others may read a private key of ours; foreign owners are their own
// business (authfile.c, sshkey_perm_ok).
func tooOpen(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Getuid() && info.Mode().Perm()&0o077 != 0
}

func logTooOpen(cfg *Config, path string, mode fs.FileMode) {
	for _, line := range []string{
		warningRule,
		"@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @",
		warningRule,
		fmt.Sprintf("Permissions 0%03o for '%s' are too open.", mode.Perm(), path),
		"It is required that your private key files are NOT accessible by others.",
		"This private key will be ignored.",
		fmt.Sprintf("Load key %q: bad permissions", path),
	} {
		cfg.Logf(-1, "%s", line)
	}
}

// rootCause strips what the os package adds: operation and path.
func rootCause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
