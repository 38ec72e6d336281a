package sshproxy

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// runKnownHostsCommand returns the lines that KnownHostsCommand has for a name; reason and key are what it
// may be told of the occasion, key being nil before there is one. What isn't there or can't be run has no
// lines; what fails is the end (sshconnect.c, load_hostkeys_command; misc.c, subprocess and exited_cleanly).
func (k *hostKeyChecker) runKnownHostsCommand(reason, name string, key ssh.PublicKey) ([]knownHost, error) {
	if len(k.cfg.KnownHostsCommand) == 0 {
		return nil, nil
	}
	tag := "KnownHostsCommand-" + reason
	words := k.commandWords(reason, name, key)
	if !filepath.IsAbs(words[0]) {
		k.cfg.Logf(-1, "%s path is not absolute", tag)
		return nil, nil
	}
	if _, err := os.Stat(words[0]); err != nil {
		k.cfg.Logf(-1, "Could not stat %s \"%s\": %s", tag, words[0], strerror(err))
		return nil, nil
	}
	k.cfg.Logf(3, "%s command %q", tag, words)
	cmd := exec.CommandContext(k.ctx, words[0], words[1:]...)
	cmd.Stderr = os.Stderr
	entries, err := knownHostsOf(k.ctx, cmd, tag, name)
	if err != nil {
		k.sayCommandFailed(tag, joinWords(words), err)
		return nil, &TextError{Text: "KnownHostsCommand failed", Err: err}
	}
	return entries, nil
}

// commandWords puts the occasion into the command's words, all but the first.
func (k *hostKeyChecker) commandWords(reason, name string, key ssh.PublicKey) []string {
	fingerprint, blob, kind := "NONE", "NONE", "NONE"
	if key != nil {
		fingerprint, kind = k.cfg.fingerprint(key), key.Type()
		blob = base64.StdEncoding.EncodeToString(key.Marshal())
	}
	tokens := strings.NewReplacer("%%", "%", "%f", fingerprint, "%H", name, "%I", reason, "%K", blob, "%t", kind)
	words := []string{k.cfg.KnownHostsCommand[0]}
	for _, word := range k.cfg.KnownHostsCommand[1:] {
		words = append(words, tokens.Replace(word))
	}
	return words
}

// knownHostsOf runs the command and reads what speaks of name from its output, as it comes.
func knownHostsOf(ctx context.Context, cmd *exec.Cmd, file, name string) (entries []knownHost, err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// The command is killed then, but a child of its own may still hold the pipe.
	defer context.AfterFunc(ctx, func() { out.Close() })()
	scanKnownHostsReader(out, file, func(entry *knownHost) bool {
		if entry.command = true; entry.matches(name) {
			entries = append(entries, *entry)
		}
		return true
	})
	_, _ = io.Copy(io.Discard, out) // after a line that is too long; how it ends tells Wait
	return entries, cmd.Wait()
}

func (k *hostKeyChecker) sayCommandFailed(tag, command string, err error) {
	var ended *exec.ExitError
	status, ok := syscall.WaitStatus(0), errors.As(err, &ended)
	if ok {
		status, ok = ended.Sys().(syscall.WaitStatus)
	}
	switch {
	case !ok: // it did not begin
		k.cfg.Logf(-1, "%s execv \"%s\": %s", tag, command, strerror(err))
		k.cfg.Logf(0, "%s %s failed, status 127", tag, command)
	case status.Signaled():
		k.cfg.Logf(-1, "%s %s exited on signal %d", tag, command, status.Signal())
	default:
		k.cfg.Logf(0, "%s %s failed, status %d", tag, command, status.ExitStatus())
	}
}

// joinWords shows words on one line, quoted where they need it (misc.c, argv_assemble).
func joinWords(words []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`, `"`, `\"`)
	shown := make([]string, len(words))
	for i, word := range words {
		shown[i] = escape.Replace(word)
		if strings.ContainsAny(word, " \t") {
			shown[i] = `"` + shown[i] + `"`
		}
	}
	return strings.Join(shown, " ")
}
