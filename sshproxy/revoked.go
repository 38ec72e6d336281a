package sshproxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/krl"
)

// inRevokedFiles reports whether one of RevokedHostKeys has the key, or can't be read, which counts as much
// (sshconnect.c, verify_host_key).
func (k *hostKeyChecker) inRevokedFiles(key ssh.PublicKey) bool {
	for _, file := range k.cfg.RevokedHostKeys {
		revoked, err := revokedBy(file, key)
		if err != nil {
			reason := err.Error()
			if errno(err) != 0 {
				reason = strerror(err)
			}
			k.cfg.Logf(-1, "Error checking host key %s %s in revoked keys file %s: %s", keyTypeName(key), k.cfg.fingerprint(key), file, reason)
			return true
		}
		if revoked {
			k.cfg.Logf(-1, "Host key %s %s revoked by file %s", keyTypeName(key), k.cfg.fingerprint(key), file)
			return true
		}
	}
	return false
}

// errRevokedFormat has OpenSSH's words for what a file of revoked keys should not hold (ssherr.c).
var errRevokedFormat = errors.New("invalid format")

// revokedBy looks a key up in a file of revoked ones: a key revocation list, or lines with a key each. Those
// revoke certificates of their keys and of authorities with their keys, too (authfile.c, sshkey_check_revoked).
func revokedBy(file string, key ssh.PublicKey) (bool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	list, err := krl.Parse(data)
	switch {
	case err == nil:
		return list.Revokes(key), nil
	case !errors.Is(err, krl.ErrNoList):
		return false, errRevokedFormat
	}
	return revokedByLines(data, key)
}

func revokedByLines(data []byte, key ssh.PublicKey) (bool, error) {
	wanted := [][]byte{plainKey(key).Marshal()}
	if cert, ok := key.(*ssh.Certificate); ok {
		wanted = append(wanted, plainKey(cert.SignatureKey).Marshal())
	}
	for line := range bytes.Lines(data) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || fields[0][0] == '#' {
			continue
		}
		if len(fields) < 2 {
			return false, errRevokedFormat
		}
		blob, err := base64.StdEncoding.DecodeString(string(fields[1]))
		if err != nil {
			return false, errRevokedFormat
		}
		listed, err := ssh.ParsePublicKey(blob)
		if err != nil || listed.Type() != string(fields[0]) {
			return false, errRevokedFormat
		}
		for _, want := range wanted {
			if bytes.Equal(plainKey(listed).Marshal(), want) {
				return true, nil
			}
		}
	}
	return false, nil
}
