package sshproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
)

// authenticator chooses the next authentication attempt, as userauth of OpenSSH's sshconnect2.c: the
// preferred methods in order, each until it has nothing left to try, as far as the node offers it.
//
// x/crypto/ssh asks it after its opening "none" and after each attempt, always from the goroutine
// that makes the connection. One attempt is one key or one password, so that what fails locally (a
// passphrase, an agent's refusal) costs that key alone.
//
// Round trips: service request, "none", then two for the accepted key (query and signature; one for
// each refused key before it) or one for a password. OpenSSH has the same; sending "none" with the
// service request or the first signature without a query would need x/crypto/ssh's own packets.
type authenticator struct {
	ctx   context.Context // the life of one handshake
	cfg   *Config
	wire  *wire
	asked *guard

	sessionID []byte

	keys          *keyring // made when publickey is first tried
	nextKey       int
	current       string // method of the running attempt
	partial       int    // partial successes seen
	passwordTries int
	kbdTries      int
	kbdAsked      bool // the node has sent a question in keyboard-interactive
}

func newAuthenticator(ctx context.Context, cfg *Config, w *wire) *authenticator {
	asked := &guard{Prompter: cfg.Prompt}
	cfg.Prompt = asked
	return &authenticator{ctx: ctx, cfg: cfg, wire: w, asked: asked, current: "none"}
}

func (a *authenticator) close() {
	if a.keys != nil {
		a.keys.close()
	}
}

// guard keeps the first error of a Prompter. x/crypto/ssh takes such an error for a failed attempt and
// goes on with the next; a user who interrupts a question wants the end.
type guard struct {
	Prompter
	err error
}

func (g *guard) Secret(ctx context.Context, prompt string) (string, error) {
	answer, err := g.Prompter.Secret(ctx, prompt)
	g.err = cmp.Or(g.err, err)
	return answer, err
}

func (g *guard) Question(ctx context.Context, prompt string) (string, error) {
	answer, err := g.Prompter.Question(ctx, prompt)
	g.err = cmp.Or(g.err, err)
	return answer, err
}

func (g *guard) Confirm(ctx context.Context, prompt string) (bool, error) {
	yes, err := g.Prompter.Confirm(ctx, prompt)
	g.err = cmp.Or(g.err, err)
	return yes, err
}

// next is the ssh.ClientAuthCallback. When nothing is left its error names the methods that the node
// still offers, which is all that x/crypto/ssh would hide.
func (a *authenticator) next(info *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	if err := a.ctx.Err(); err != nil {
		return nil, context.Cause(a.ctx)
	}
	if a.asked.err != nil {
		return nil, a.asked.err
	}
	if readErr, writeErr := a.wire.failure(); readErr != nil || writeErr != nil {
		return nil, fmt.Errorf("connection lost: %w", errors.Join(readErr, writeErr))
	}
	if a.sessionID == nil {
		sayNegotiated(a.cfg, info.Metadata)
	}
	a.sessionID = info.Metadata.SessionID()
	offered := info.AllowedMethods
	a.cfg.Logf(1, "Authentications that can continue: %s", printable(strings.Join(offered, ",")))
	if n := len(info.PartialSuccessMethods); n > a.partial {
		a.cfg.Logf(1, "Authenticated using %q with partial success.", info.PartialSuccessMethods[n-1])
		a.partial = n
		a.startOver()
	}
	for _, method := range a.cfg.PreferredAuthentications {
		if !slices.Contains(offered, method) {
			continue
		}
		if m := a.attempt(method); m != nil {
			a.cfg.Logf(1, "Next authentication method: %s", method)
			a.current = method
			return m, nil
		}
		if a.asked.err != nil {
			return nil, a.asked.err
		}
	}
	return nil, permissionDenied(a.cfg, offered)
}

// startOver makes all keys worth a try again after a partial success, those first that weren't tried yet: a
// node that wants two keys wants two different ones (sshconnect2.c, pubkey_reset).
func (a *authenticator) startOver() {
	if a.keys != nil {
		untried := a.keys.candidates[a.nextKey:]
		a.keys.candidates = slices.Concat(untried, a.keys.candidates[:a.nextKey])
	}
	a.nextKey = 0
}

// attempt returns the next try with a method, nil when it has none.
func (a *authenticator) attempt(method string) ssh.AuthMethod {
	switch method {
	case "publickey":
		return a.publicKey()
	case "password":
		return a.password()
	case "keyboard-interactive":
		return a.keyboardInteractive()
	}
	return nil
}

func (a *authenticator) publicKey() ssh.AuthMethod {
	if !a.cfg.PubkeyAuthentication {
		return nil
	}
	if a.keys == nil {
		a.keys = newKeyring(a.ctx, a.cfg, a.wire.sessionBind(a.sessionID, false))
	}
	for a.nextKey < len(a.keys.candidates) {
		c := a.keys.candidates[a.nextKey]
		a.nextKey++
		signer, err := a.keys.signer(c)
		if err == nil {
			return ssh.PublicKeys(signer)
		}
		if a.asked.err != nil {
			return nil
		}
	}
	return nil
}

func (a *authenticator) password() ssh.AuthMethod {
	if !a.cfg.PasswordAuthentication || a.cfg.BatchMode || a.passwordTries >= a.cfg.NumberOfPasswordPrompts {
		return nil
	}
	a.passwordTries++
	if a.passwordTries > 1 {
		a.cfg.Logf(-1, textTryAgain)
	}
	prompt := fmt.Sprintf("%s@%s's password: ", a.cfg.User, a.cfg.promptHost())
	return ssh.PasswordCallback(func() (string, error) { return a.cfg.Prompt.Secret(a.ctx, prompt) })
}

func (a *authenticator) keyboardInteractive() ssh.AuthMethod {
	if !a.cfg.KbdInteractiveAuthentication || a.cfg.BatchMode || a.kbdTries >= a.cfg.NumberOfPasswordPrompts {
		return nil
	}
	if a.kbdTries > 0 && !a.kbdAsked {
		return nil // the node offers the method but never asks anything
	}
	a.kbdTries++
	return ssh.KeyboardInteractive(a.answer)
}

// answer puts the node's questions (RFC 4256) to the user, marked with who asks so that a node cannot
// pass for another program's prompt.
func (a *authenticator) answer(name, instruction string, questions []string, echos []bool) ([]string, error) {
	a.kbdAsked = true
	for _, text := range []string{name, instruction} {
		if text == "" {
			continue
		}
		for _, line := range bannerLines(text) {
			a.cfg.Logf(0, "%s", line)
		}
	}
	answers := make([]string, len(questions))
	for i, question := range questions {
		prompt := fmt.Sprintf("(%s@%s) %s", a.cfg.User, a.cfg.promptHost(), printable(question))
		ask := a.cfg.Prompt.Secret
		if echos[i] {
			ask = a.cfg.Prompt.Question
		}
		answer, err := ask(a.ctx, prompt)
		if err != nil {
			return nil, err
		}
		answers[i] = answer
	}
	return answers, nil
}
