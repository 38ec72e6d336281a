package sshproxy

import (
	"context"
	"crypto/rsa"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// candidate is a key that may be offered: OpenSSH's struct identity.
type candidate struct {
	Identity               // its private key's file; Path is "" for a key that only the agent has
	comment  string        // the agent's name for it
	public   ssh.PublicKey // nil where only the private file can tell
	inAgent  bool
}

// name is what OpenSSH calls the key in its log.
func (c *candidate) name() string {
	if c.Path != "" {
		return c.Path
	}
	return c.comment
}

// String describes the key as OpenSSH's log does (sshconnect2.c, format_identity). A certificate has its key's
// fingerprint.
func (c *candidate) String() string {
	var b strings.Builder
	b.WriteString(c.name() + " ")
	if c.public != nil {
		b.WriteString(keyTypeName(c.public) + " " + ssh.FingerprintSHA256(plainKey(c.public)))
	}
	if c.Explicit {
		b.WriteString(" explicit")
	}
	if c.public != nil && isSecurityKey(c.public) {
		b.WriteString(" authenticator")
	}
	if c.inAgent {
		b.WriteString(" agent")
	}
	return b.String()
}

// keyring holds the candidates of one authentication in the order they are offered, and signs.
type keyring struct {
	ctx        context.Context // the life of one handshake
	cfg        *Config
	agent      *agentConn // nil without one
	candidates []*candidate
}

// newKeyring reads the public halves of all keys (sshconnect2.c, pubkey_prepare): certificates named
// by CertificateFile, keys of the agent that an IdentityFile names, its other keys, then files. The agent is
// told of the connection before it is asked for anything.
func newKeyring(ctx context.Context, cfg *Config, bind *sessionBind) *keyring {
	k := &keyring{ctx: ctx, cfg: cfg}
	k.dialAgent(bind)
	files := identityFiles(cfg)
	k.candidates = certificateFiles(cfg)
	others := k.claimFromAgent(files)
	if !cfg.IdentitiesOnly {
		k.candidates = append(k.candidates, others...)
	}
	for _, c := range files {
		if !c.inAgent {
			k.candidates = append(k.candidates, c)
		}
	}
	k.dropSecurityKeys()
	k.candidates = slices.DeleteFunc(k.candidates, func(c *candidate) bool {
		if c.public == nil || len(acceptedAlgorithms(cfg, c.public)) > 0 {
			return false
		}
		cfg.Logf(1, "Skipping %s key %s - corresponding algorithm not in PubkeyAcceptedAlgorithms", c.public.Type(), c.name())
		return true
	})
	for _, c := range k.candidates {
		cfg.Logf(1, "Will attempt key: %s", c)
	}
	return k
}

// dropSecurityKeys leaves those to the agent where there is no library for them.
func (k *keyring) dropSecurityKeys() {
	if k.cfg.SecurityKeyProvider != "" {
		return
	}
	k.candidates = slices.DeleteFunc(k.candidates, func(c *candidate) bool {
		if c.inAgent || c.public == nil || !isSecurityKey(c.public) {
			return false
		}
		k.cfg.Logf(1, "ignoring authenticator-hosted key %s as no SecurityKeyProvider has been specified", c.name())
		return true
	})
}

// dialAgent connects to the agent, where there is one.
func (k *keyring) dialAgent(bind *sessionBind) {
	if k.cfg.AgentSocket == "" {
		return
	}
	a, err := dialAgent(k.ctx, k.cfg.AgentSocket)
	if err != nil {
		k.cfg.Logf(1, "get_agent_identities: %v", err)
		return
	}
	bindAgent(k.cfg, a, bind)
	k.agent = a
}

func (k *keyring) close() {
	if k.agent != nil {
		k.agent.close()
	}
}

// identityFiles returns a candidate for each IdentityFile, followed by its FILE-cert where no
// CertificateFile is named.
func identityFiles(cfg *Config) []*candidate {
	var files []*candidate
	for _, id := range cfg.IdentityFile {
		if strings.EqualFold(id.Path, "none") {
			continue
		}
		public := loadIdentity(cfg, id.Path, "pubkey")
		files = append(files, &candidate{Identity: id, public: public})
		if len(cfg.CertificateFile) > 0 {
			continue
		}
		if cert, ok := loadIdentity(cfg, id.Path+"-cert", "identity pubkey").(*ssh.Certificate); ok && cert.CertType == ssh.UserCert {
			files = append(files, &candidate{Identity: id, public: cert})
		}
	}
	return files
}

// loadIdentity is loadPublic without keys that are too short (ssh.c, check_load).
func loadIdentity(cfg *Config, path, what string) ssh.PublicKey {
	public := loadPublic(path)
	if public != nil && tooShort(cfg, public) {
		cfg.Logf(-1, "load %s %q: Invalid key length", what, path)
		return nil
	}
	return public
}

// plainKey returns the key that a certificate is about, or the key itself.
func plainKey(key ssh.PublicKey) ssh.PublicKey {
	if cert, ok := key.(*ssh.Certificate); ok {
		return cert.Key
	}
	return key
}

// tooShort reports whether RequiredRSASize rules a key out; other types have one length each.
func tooShort(cfg *Config, key ssh.PublicKey) bool {
	outer, ok := plainKey(key).(ssh.CryptoPublicKey)
	if !ok {
		return false
	}
	inner, ok := outer.CryptoPublicKey().(*rsa.PublicKey)
	return ok && inner.N.BitLen() < cfg.RequiredRSASize
}

func certificateFiles(cfg *Config) []*candidate {
	var certs []*candidate
	for _, path := range cfg.CertificateFile {
		cert, ok := loadIdentity(cfg, path, "identity cert").(*ssh.Certificate)
		if !ok || cert.CertType != ssh.UserCert {
			cfg.Logf(1, "no user certificate in %s", path)
			continue
		}
		certs = append(certs, &candidate{Identity: Identity{Path: path, Explicit: true}, public: cert})
	}
	return certs
}

// claimFromAgent asks the agent for its keys. Those that a file names are marked there and join the
// candidates at once; the others are returned.
func (k *keyring) claimFromAgent(files []*candidate) (others []*candidate) {
	if k.agent == nil {
		return nil
	}
	keys, err := k.agent.List()
	if err != nil {
		k.cfg.Logf(1, "get_agent_identities: %v", err)
		return nil
	}
	for _, key := range keys {
		public, err := ssh.ParsePublicKey(key.Blob)
		if err != nil {
			continue // a type that x/crypto/ssh does not know cannot be offered
		}
		if tooShort(k.cfg, public) {
			k.cfg.Logf(1, "ignoring %s agent key: Invalid key length", public.Type())
			continue
		}
		i := slices.IndexFunc(files, func(f *candidate) bool {
			return f.public != nil && !f.inAgent && sameKey(f.public, public)
		})
		if i < 0 {
			others = append(others, &candidate{comment: key.Comment, public: public, inAgent: true})
			continue
		}
		files[i].inAgent, files[i].comment = true, key.Comment
		k.candidates = append(k.candidates, files[i])
	}
	return others
}

// signer returns what x/crypto/ssh needs to offer the candidate. Where the public half is known the
// private one is not touched before the node has accepted it; else it is loaded now.
func (k *keyring) signer(c *candidate) (ssh.Signer, error) {
	if c.public == nil {
		k.cfg.Logf(1, "Trying private key: %s", c.Path)
		loaded, err := k.load(c.Identity)
		if err != nil {
			return nil, err
		}
		algorithms := acceptedAlgorithms(k.cfg, loaded.PublicKey())
		if len(algorithms) == 0 {
			return nil, errNoKey
		}
		return &lazySigner{public: loaded.PublicKey(), algorithms: algorithms,
			sign: func(data []byte, algorithm string) (*ssh.Signature, error) {
				return signWith(loaded, data, algorithm)
			}}, nil
	}
	k.cfg.Logf(1, "Offering public key: %s", c)
	return &lazySigner{
		public:     c.public,
		algorithms: acceptedAlgorithms(k.cfg, c.public),
		sign: func(data []byte, algorithm string) (*ssh.Signature, error) {
			k.cfg.Logf(1, "Server accepts key: %s", c)
			return k.sign(c, data, algorithm)
		},
	}, nil
}

// sign signs in the agent or with the file. A certificate is signed for by its plain key, wherever
// that is (sshconnect2.c, sign_and_send_pubkey).
func (k *keyring) sign(c *candidate, data []byte, algorithm string) (*ssh.Signature, error) {
	wanted := c.public
	if cert, ok := wanted.(*ssh.Certificate); ok && !c.inAgent {
		wanted = cert.Key
		c = k.privateOf(c, wanted)
	}
	if c.inAgent {
		signature, err := k.agent.SignWithFlags(c.public, data, signatureFlags(algorithm))
		if err != nil {
			k.cfg.Logf(1, "agent: %v", err)
			k.cfg.Logf(-1, "sign_and_send_pubkey: signing failed for %s %q from agent: agent refused operation",
				keyTypeName(c.public), c.name())
		}
		return signature, err
	}
	loaded, err := k.load(c.Identity)
	if err != nil {
		return nil, err
	}
	if !sameKey(loaded.PublicKey(), wanted) {
		k.cfg.Logf(-1, "identity_sign: private key %s contents do not match public", c.Path)
		return nil, errNoKey
	}
	return signWith(loaded, data, algorithm)
}

// privateOf returns the candidate that signs for a certificate: the one of its key, else the file whose name the
// certificate's is made of, else its own.
func (k *keyring) privateOf(cert *candidate, key ssh.PublicKey) *candidate {
	for _, c := range k.candidates {
		if c.public != nil && sameKey(c.public, key) {
			return c
		}
	}
	for _, c := range k.candidates {
		if c.public == nil && (cert.Path == c.Path || cert.Path == c.Path+".pub" || cert.Path == c.Path+"-cert.pub") {
			return c
		}
	}
	return cert
}

// load reads a private key, and adds it to the agent where the user wants that.
func (k *keyring) load(id Identity) (ssh.Signer, error) {
	raw, err := loadPrivate(k.ctx, k.cfg, id)
	if err != nil {
		return nil, err
	}
	if token, ok := raw.(*securityKey); ok {
		return token, nil // the agent's protocol has it, x/crypto/ssh's agent doesn't: it isn't added
	}
	signer, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		k.cfg.Logf(-1, "Load key %q: %v", id.Path, err)
		return nil, errNoKey
	}
	if tooShort(k.cfg, signer.PublicKey()) {
		k.cfg.Logf(1, "load_identity_file: Skipping key %s: Invalid key length", id.Path)
		return nil, errNoKey
	}
	return signer, k.addToAgent(id.Path, raw)
}

// addToAgent gives a private key to the agent (sshconnect.c, maybe_add_key_to_agent). An error is the user's who
// gives up; what the agent says costs nothing but the adding.
func (k *keyring) addToAgent(path string, raw any) error {
	how := k.cfg.AddKeysToAgent
	if !how.Add {
		return nil
	}
	if k.agent == nil {
		k.cfg.Logf(3, "no authentication agent, not adding key")
		return nil
	}
	comment := keyComment(path)
	if how.Ask {
		yes, err := k.cfg.Prompt.Confirm(k.ctx, fmt.Sprintf("Add key %s (%s) to agent?", path, comment))
		if err != nil {
			return err
		}
		if !yes {
			k.cfg.Logf(3, "user denied adding this key")
			return nil
		}
	}
	err := k.agent.Add(agent.AddedKey{PrivateKey: raw, Comment: comment, ConfirmBeforeUse: how.Confirm,
		LifetimeSecs: uint32(min(how.Lifetime/time.Second, math.MaxUint32))})
	if err != nil {
		k.cfg.Logf(1, "could not add identity to agent: %s (%v)", path, err)
		return nil
	}
	k.cfg.Logf(1, "identity added to agent: %s", path)
	return nil
}

func signWith(signer ssh.Signer, data []byte, algorithm string) (*ssh.Signature, error) {
	if s, ok := signer.(ssh.AlgorithmSigner); ok {
		return s.SignWithAlgorithm(nil, data, algorithm)
	}
	return nil, fmt.Errorf("key type %s cannot sign as %s", signer.PublicKey().Type(), algorithm)
}

// lazySigner is an ssh.MultiAlgorithmSigner whose private half may not be loaded yet.
type lazySigner struct {
	public     ssh.PublicKey
	algorithms []string
	sign       func(data []byte, algorithm string) (*ssh.Signature, error)
}

func (s *lazySigner) PublicKey() ssh.PublicKey { return s.public }
func (s *lazySigner) Algorithms() []string     { return s.algorithms }

func (s *lazySigner) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	return s.sign(data, s.algorithms[0])
}

func (s *lazySigner) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	return s.sign(data, algorithm)
}

// certSuffix ends the names of certificate types and algorithms (PROTOCOL.certkeys).
const certSuffix = "-cert-v01@openssh.com"

// dsaType is offered only when PubkeyAcceptedAlgorithms names it.
const dsaType = "ssh-dss"

// acceptedAlgorithms returns the signature algorithms for a key that PubkeyAcceptedAlgorithms allows,
// best first. SHA-1 with RSA must be named to be used (RFC 8332).
func acceptedAlgorithms(cfg *Config, key ssh.PublicKey) []string {
	base, isCert := strings.CutSuffix(key.Type(), certSuffix)
	if isCert && strings.HasPrefix(base, "sk-") {
		base += "@openssh.com"
	}
	algorithms := []string{base}
	if base == ssh.KeyAlgoRSA {
		algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSA}
	}
	accepted := cfg.PubkeyAcceptedAlgorithms
	return slices.DeleteFunc(algorithms, func(algorithm string) bool {
		if len(accepted) == 0 {
			return algorithm == ssh.KeyAlgoRSA || algorithm == dsaType
		}
		if isCert {
			algorithm = strings.TrimSuffix(algorithm, "@openssh.com") + certSuffix
		}
		return !slices.Contains(accepted, algorithm)
	})
}
