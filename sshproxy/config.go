package sshproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Prompter asks the user. Secret is read without echo, Question with it; both return "" when there is nobody
// to ask. Confirm asks for leave, which is no then. An error comes only when ctx has ended.
type Prompter interface {
	Secret(ctx context.Context, prompt string) (string, error)
	Question(ctx context.Context, prompt string) (string, error)
	Confirm(ctx context.Context, prompt string) (bool, error)
}

// Identity is one IdentityFile. Explicit ones were named by the user: their absence is worth a line.
type Identity struct {
	Path     string
	Explicit bool
}

// AddKeys says what becomes of a private key that was read from a file (ssh_config(5), AddKeysToAgent).
type AddKeys struct {
	Add      bool
	Ask      bool          // the user is asked first
	Confirm  bool          // the agent asks at each use
	Lifetime time.Duration // in seconds, after which the agent forgets the key; 0 means never
}

// Config says whom to talk to and how. The zero value of a list means this package's default.
type Config struct {
	User         string
	Host         string // as after Hostname; the name in texts and in known_hosts
	Port         int    // 0 means 22
	HostKeyAlias string
	Addr         string // the peer's address in texts; "" where a proxy hides it

	UserKnownHostsFile    []string
	GlobalKnownHostsFile  []string
	StrictHostKeyChecking string // yes, no, off, ask (also ""), accept-new
	HashKnownHosts        bool
	RevokedHostKeys       []string // files of keys, or of OpenSSH's revocation lists
	// KnownHostsCommand is a program with its arguments, in which %f, %H, %I, %K and %t stand for what is
	// known only with the host key, and %% for %; its output is more lines of known_hosts.
	KnownHostsCommand []string
	UpdateHostKeys    string // no (also ""), yes, ask: whether the node's other keys are learned, and lost ones forgotten

	HostKeyAlgorithms []string
	// HostKeyAlgorithmsFixed keeps the order of HostKeyAlgorithms: the user gave the whole list.
	HostKeyAlgorithmsFixed bool
	CASignatureAlgorithms  []string

	FingerprintHash string // SHA256 (also ""), MD5
	VisualHostKey   bool

	NoHostAuthenticationForLocalhost bool

	IdentityFile    []Identity
	CertificateFile []string
	IdentitiesOnly  bool
	AgentSocket     string // path of ssh-agent's socket; "" for none
	AddKeysToAgent  AddKeys
	RequiredRSASize int // bits; the user's smaller keys are passed over, a host's is refused
	// SecurityKeyProvider is the library that ssh-sk-helper loads for keys in FIDO tokens, or "internal" for its own;
	// "" passes such keys over where they aren't an agent's.
	SecurityKeyProvider string

	PreferredAuthentications     []string
	PubkeyAuthentication         bool
	PasswordAuthentication       bool
	KbdInteractiveAuthentication bool
	NumberOfPasswordPrompts      int // 0 means 3
	BatchMode                    bool
	ForwardAgent                 bool   // sessions may ask for it
	ForwardAgentSocket           string // another agent than AgentSocket's to forward; "" for that one

	// What the caller means to do, so that it can be said that a key that has changed forbids it; then
	// HostKeyChanged is true. ExitOnForwardFailure makes it the end.
	ForwardX11, PortForwarding bool
	ExitOnForwardFailure       bool

	Ciphers, MACs, KexAlgorithms []string
	PubkeyAcceptedAlgorithms     []string
	RekeyLimitBytes              uint64 // 0: as the cipher has it; less than 16 KiB counts as 16 KiB

	// ConnectTimeout bounds the wait for the peer's version line; 0 means no limit.
	ConnectTimeout time.Duration

	ServerAliveInterval time.Duration
	ServerAliveCountMax int
	// ChannelKeepAlive sends a keepalive when nothing was sent for that long while a session is open.
	ChannelKeepAlive time.Duration

	// LinkDown reports that what is below the connection is lost for now and being replaced; nil
	// means never. A master's new clients then wait for ConnectTimeout, theirs or ours, at most. It says nothing to
	// ServerAlive: who sets that wants its verdict.
	LinkDown func() bool
	// Another opens one more byte stream to the same SSH server. A Master rides on it when that grants no
	// more sessions on the first connection (sshd's MaxSessions); nil where there is none to be had. The
	// end of ctx ends the opening, not the stream.
	Another func(ctx context.Context) (net.Conn, error)
	// LastWords returns what a master's client reads on its stderr, a line without its end, when the
	// connection is lost below its session, or is ErrLinkDown; nil says nothing, as OpenSSH's master.
	LastWords func(err error) string

	Banner io.Writer // receives the node's banner as it is to be shown; nil drops it
	UTF8   bool      // the user's terminal shows UTF-8; else only ASCII of a banner is

	Prompt Prompter // nil: nobody to ask
	Logf   func(level int, format string, args ...any)
	// Verbose adds the lines that OpenSSH has at LogLevel VERBOSE, between INFO (0 of Logf) and DEBUG1 (1).
	Verbose bool

	hostKey ssh.PublicKey // the only one to be accepted; nil goes by the files
}

// Limits of OpenSSH's client (ssh_config(5)).
const (
	defaultPort            = 22
	defaultPasswordPrompts = 3
	defaultAliveCountMax   = 3
)

// defaultAuthentications is OpenSSH's order without the methods that this package lacks.
var defaultAuthentications = []string{"publickey", "keyboard-interactive", "password"}

// withDefaults returns the configuration with every zero value that has a meaning replaced.
func (cfg Config) withDefaults() Config {
	if cfg.Port == 0 {
		cfg.Port = defaultPort
	}
	if cfg.NumberOfPasswordPrompts == 0 {
		cfg.NumberOfPasswordPrompts = defaultPasswordPrompts
	}
	if cfg.ServerAliveCountMax == 0 {
		cfg.ServerAliveCountMax = defaultAliveCountMax
	}
	if len(cfg.PreferredAuthentications) == 0 {
		cfg.PreferredAuthentications = defaultAuthentications
	}
	if cfg.Logf == nil {
		cfg.Logf = func(int, string, ...any) {}
	}
	if cfg.Prompt == nil {
		cfg.Prompt = nobody{}
	}
	if cfg.LinkDown == nil {
		cfg.LinkDown = func() bool { return false }
	}
	if cfg.LastWords == nil {
		cfg.LastWords = func(error) string { return "" }
	}
	return cfg
}

// nobody answers as OpenSSH does without a terminal: with nothing.
type nobody struct{}

func (nobody) Secret(context.Context, string) (string, error)   { return "", nil }
func (nobody) Question(context.Context, string) (string, error) { return "", nil }
func (nobody) Confirm(context.Context, string) (bool, error)    { return false, nil }

// promptHost is the name in prompts: the alias, or the host in lower case (sshconnect.c, ssh_login).
func (cfg *Config) promptHost() string {
	if cfg.HostKeyAlias != "" {
		return cfg.HostKeyAlias
	}
	return strings.ToLower(cfg.Host)
}

// peer names the other end in texts as OpenSSH does; behind a proxy it has no address.
func (cfg *Config) peer() string {
	if cfg.Addr == "" {
		return "UNKNOWN port 65535"
	}
	return fmt.Sprintf("%s port %d", cfg.Addr, cfg.Port)
}

// transportConfig returns the algorithm choices. A list that the user gave is cut down to what this
// package speaks; a list with nothing left is an error, never silently the default.
func (cfg *Config) transportConfig() (ssh.Config, error) {
	known, weak := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	var out ssh.Config
	var err error
	choose := func(keyword string, asked, known, weak []string) []string {
		chosen := intersect(asked, append(known, weak...))
		if len(asked) > 0 && len(chosen) == 0 && err == nil {
			err = fmt.Errorf("no supported algorithm in %s=%s", keyword, strings.Join(asked, ","))
		}
		return chosen
	}
	out.Ciphers = choose("Ciphers", cfg.Ciphers, known.Ciphers, weak.Ciphers)
	out.MACs = choose("MACs", cfg.MACs, known.MACs, weak.MACs)
	out.KeyExchanges = choose("KexAlgorithms", cfg.KexAlgorithms, append(known.KeyExchanges, kexLibSSH), weak.KeyExchanges)
	out.RekeyThreshold = cfg.RekeyLimitBytes
	if out.RekeyThreshold > 0 {
		out.RekeyThreshold = max(out.RekeyThreshold, leastRekeyBytes)
	}
	return out, err
}

// leastRekeyBytes is more than a login takes. OpenSSH renews no keys before authentication is over (packet.c,
// ssh_packet_need_rekeying); x/crypto/ssh would, and the login then fails or never ends.
const leastRekeyBytes = 16 << 10

// kexLibSSH is the name that curve25519-sha256 had before RFC 8731. x/crypto/ssh knows it and doesn't list it.
const kexLibSSH = "curve25519-sha256@libssh.org"

// intersect returns the elements of asked that known holds, in asked's order.
func intersect(asked, known []string) []string {
	var both []string
	for _, name := range asked {
		if slices.Contains(known, name) && !slices.Contains(both, name) {
			both = append(both, name)
		}
	}
	return both
}
