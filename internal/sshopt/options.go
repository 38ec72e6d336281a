package sshopt

import (
	"net/netip"
	"os"
	"time"
)

// Action is what the command line asks for.
type Action int

// Actions.
const (
	ActionRun        Action = iota // a session, a stdio forward, or forwards alone
	ActionVersion                  // -V: print the version on standard error, exit 0
	ActionQuery                    // -Q: print Query's answer (see Options.QueryText), exit 0
	ActionDump                     // -G: print Options.Dump, exit 0
	ActionMuxCommand               // -O: ask the control master for MuxCommand
)

// MuxCommand is the word after -O.
type MuxCommand string

// Commands to a control master.
const (
	MuxCheck   MuxCommand = "check"
	MuxForward MuxCommand = "forward"
	MuxCancel  MuxCommand = "cancel"
	MuxExit    MuxCommand = "exit"
	MuxStop    MuxCommand = "stop"
	MuxProxy   MuxCommand = "proxy"
	// OpenSSH 10's: what the master tells of its connection.
	MuxConnInfo MuxCommand = "conninfo"
	MuxChannels MuxCommand = "channels"
)

// Environment is everything outside argv and the configuration files that they may refer to.
type Environment struct {
	Args0     string // the program as it was called; ProxyJump calls it again
	Home      string // home of the local user, from the password database
	LocalUser string // name of the local user
	UID       int    // its number
	Hostname  string // local host name, domain included where it has one

	StdinIsTerminal bool // whether the session can have a pty by default

	Getenv    func(name string) (string, bool)  // nil: os.LookupEnv
	HomeOf    func(user string) (string, bool)  // home of another user, for ~user; nil: nobody else is known
	Exec      func(command string) (int, error) // runs Match exec, returns the exit status; nil: $SHELL -c
	Addresses func() ([]netip.Addr, error)      // for Match localnetwork; nil: the machine's interfaces

	// Resolve looks a name up for CanonicalizeHostname, which is refused without it. It returns the
	// name's canonical one. IsTarget reports whether a host is reached by SSM; such hosts aren't
	// looked up. nil: none is.
	Resolve  func(name string) (cname string, ok bool)
	IsTarget func(host string) bool

	// StartSession understands a ProxyCommand, tokens expanded, that does no more than to start an SSM
	// session. One that has to do with sessions, but is to be run as written, is an error that says what
	// isn't understood; any other has no Target. nil: none is understood.
	StartSession func(command string) (StartSession, error)

	OwnConfig      string // this program's own file, read first; "" reads none
	OwnConfigNamed bool   // the user named it: that it can't be opened is an error
	UserConfig     string // "" = Home/.ssh/config
	SystemConfig   string // "" = /etc/ssh/ssh_config

	Version string // answers Match version, e.g. "OpenSSH_9.2"; "" = that
}

// StartSession is an SSM session to a port of a node, as a ProxyCommand starts it. What is empty is left to
// the environment. Port is 0 where the document has it.
type StartSession struct {
	Target, Document, Region, Profile, Endpoint string
	Port                                        int
}

// Options is a command line together with the configuration files: every field is named after
// its ssh_config keyword, defaults are filled in and tokens are expanded. It is filled once, by
// Parse, and survives JSON unchanged, so that it can be handed to the control master.
type Options struct {
	// What to do.
	Action       Action
	MuxCommand   MuxCommand
	Query        string // the word after -Q, known to be valid
	Destination  string // the destination as typed: with user and port, or as an ssh:// URI
	OriginalHost string // its host part as typed (%n)
	Host         string // after Hostname, in lower case (%h)
	User         string
	Port         int
	Command      string // the words joined, or RemoteCommand; or the subsystem's name
	HasCommand   bool   // Command isn't empty: OpenSSH takes a command of length 0 for none
	StdioForward *StdioForward
	ConfigFile   string // the argument of -F; "none" reads no file; "" when -F isn't given
	LogFile      string // -E
	Syslog       bool   // -y
	Verbose      int    // how many times -v counts, 0 to 3
	Notices      []Notice
	Set          KeywordSet // the keywords that the user set, by flag or in a file; see IsSet

	// Where to.
	AddressFamily                    string // any, inet, inet6
	BindAddress                      string
	BindInterface                    string
	CanonicalDomains                 []string
	CanonicalizeFallbackLocal        bool
	CanonicalizeHostname             Canonicalize
	CanonicalizeMaxDots              int
	CanonicalizePermittedCNAMEs      []string // source:target, patterns
	ConnectionAttempts               int
	ConnectTimeout                   time.Duration // 0: none
	Hostname                         string
	IgnoreUnknown                    string
	IPQoS                            [2]string // interactive, bulk
	NoHostAuthenticationForLocalhost bool
	ProxyCommand                     string // tokens expanded; "" = none; holds ProxyJump's command, too
	ProxyJump                        []Jump
	ProxyUseFdpass                   bool
	Tag                              string
	TCPKeepAlive                     bool
	VersionAddendum                  string

	// Host keys.
	CASignatureAlgorithms []string
	CheckHostIP           bool
	FingerprintHash       string // SHA256, MD5
	GlobalKnownHostsFile  []string
	HashKnownHosts        bool
	HostKeyAlgorithms     []string
	HostKeyOrderFixed     bool // HostKeyAlgorithms gives the whole list, or its head
	HostKeyAlias          string
	KnownHostsCommand     string
	KnownHostsCommandArgs []string // its words, expanded but for %% and what only the host key tells: %f %H %I %K %t
	RequiredRSASize       int
	RevokedHostKeys       []string
	StrictHostKeyChecking string // yes, no, ask, accept-new
	UpdateHostKeys        string // yes, no, ask
	UserKnownHostsFile    []string
	VerifyHostKeyDNS      string // yes, no, ask
	VisualHostKey         bool

	// Authentication.
	AddKeysToAgent               AddKeys
	AgentSocket                  string // from IdentityAgent or $SSH_AUTH_SOCK; "" = no agent
	BatchMode                    bool
	CertificateFile              []string
	EnableSSHKeysign             bool
	GSSAPIAuthentication         bool
	GSSAPIDelegateCredentials    bool
	HostbasedAcceptedAlgorithms  []string
	HostbasedAuthentication      bool
	IdentitiesOnly               bool
	IdentityAgent                string
	IdentityFile                 []Identity
	KbdInteractiveAuthentication bool
	KbdInteractiveDevices        string
	NumberOfPasswordPrompts      int
	PasswordAuthentication       bool
	PKCS11Provider               string
	PreferredAuthentications     []string // empty: the client's own order
	PubkeyAcceptedAlgorithms     []string
	PubkeyAuthentication         PubkeyAuth
	SecurityKeyProvider          string

	// Transport.
	ChannelTimeout      []string
	Ciphers             []string // of those asked for, the ones this program can do; never empty
	Compression         bool
	KexAlgorithms       []string
	MACs                []string
	RekeyLimit          Rekey
	ServerAliveCountMax int
	ServerAliveInterval time.Duration

	// Control master.
	ControlMaster  ControlMaster
	ControlPath    string // "" = none
	ControlPersist ControlPersist

	// Session.
	EnableEscapeCommandline bool
	EscapeChar              int // a byte, or EscapeNone
	ForkAfterAuthentication bool
	ForwardAgent            bool
	ForwardAgentSocket      string // another socket than AgentSocket to forward; "" = AgentSocket
	ForwardX11              bool
	ForwardX11Timeout       time.Duration
	ForwardX11Trusted       bool
	LocalCommand            string // unless PermitLocalCommand, never run; tokens expanded, but for %T
	LogLevel                LogLevel
	LogVerbose              []string
	ObscureKeystrokeTiming  string
	PermitLocalCommand      bool
	RemoteCommand           string
	RequestTTY              RequestTTY
	SendEnv                 []string // patterns
	SessionType             SessionType
	SetEnv                  []string // NAME=value
	StdinNull               bool
	TTY                     bool // the session gets a pty
	SyslogFacility          string
	XAuthLocation           string

	// Forwards.
	ClearAllForwardings   bool
	DynamicForward        []Forward
	ExitOnForwardFailure  bool
	GatewayPorts          bool
	LocalForward          []Forward
	PermitRemoteOpen      []string
	RemoteForward         []Forward
	StreamLocalBindMask   os.FileMode
	StreamLocalBindUnlink bool
	Tunnel                string // no, point-to-point, ethernet
	TunnelDevice          string

	// This program's own keywords.
	SSMAnswerAhead   bool          // answer the agent's handshake before it asks, where the answer is known
	SSMDocument      string        // SSM document that starts the session; "" = the program's default
	SSMEndpoint      string        // URL of the SSM API; "" = as the SDK finds it
	SSMKeepAlive     time.Duration // keepalives against the service's idle time-out; 0 = none
	SSMMultiplex     bool          // reuse one session by a control master without being asked
	SSMPayloadBytes  int           // size of an agent message's payload; 0 = the default
	SSMPingInterval  time.Duration // between websocket pings; 0 = the default
	SSMPort          int           // where sshd listens on the node; 0 = Port, SSMPortNone = as the document has it
	SSMProfile       string
	SSMRegion        string
	SSMQueueTimeout  time.Duration // for how long StartSession waits for its turn; 0 = not at all
	SSMResume        time.Duration // for how long a lost data channel is resumed; 0 = not at all
	SSMSendSignals   bool          // a signal that ends the call goes to its command, too
	SSMSpareChannels int           // session channels that a master keeps open ahead of need; 0 = none
	SSMTarget        string        // the managed node behind this host; "" = the host itself may name one, none = there is none
	SSMWait          time.Duration // for how long a node that is not connected is waited for; 0 = for ConnectTimeout
	SSMWindowBytes   int           // unacknowledged bytes; 0 = the default
}

// Notice is a line for standard error that Parse came upon without failing. A raw one goes to
// standard error whatever the log file, and ends in \n; the others are lines of the log, which end
// in \r\n. Level is as report.Logf has it; those that the log level hides are left out already.
// The text needs no escaping.
type Notice struct {
	Text  string
	Level int
	Raw   bool
}

// Error is a command line or a configuration that can't be used. Text is OpenSSH's, without the
// last line's end; lines are separated by \n. It may be empty, when the notices say it all. Raw is
// as in Notice; where it isn't, the text is an error of the log, which LogQuiet hides.
type Error struct {
	Text string
	Code int
	Raw  bool
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

// SSMPortNone as SSMPort leaves the port to the document.
const SSMPortNone = -1

// EscapeNone as EscapeChar means that there is no escape character.
const EscapeNone = -1

// ControlMaster says whether to become a control master or use one.
type ControlMaster int

// Values of ControlMaster.
const (
	ControlMasterNo ControlMaster = iota
	ControlMasterYes
	ControlMasterAuto
	ControlMasterAsk
	ControlMasterAutoAsk
)

// ControlPersist is what becomes of a control master without clients. Unless Set, it ends with
// the client that began it.
type ControlPersist struct {
	Set     bool
	Forever bool
	Timeout time.Duration
}

// RequestTTY says whether the session gets a pty.
type RequestTTY int

// Values of RequestTTY.
const (
	RequestTTYAuto RequestTTY = iota
	RequestTTYNo
	RequestTTYYes
	RequestTTYForce
)

// SessionType says what is run at the other end.
type SessionType int

// Values of SessionType.
const (
	SessionDefault SessionType = iota
	SessionNone
	SessionSubsystem
)

// Canonicalize says whether the host's name is looked up before the configuration is read again.
type Canonicalize int

// Values of Canonicalize.
const (
	CanonicalizeNo Canonicalize = iota
	CanonicalizeYes
	CanonicalizeAlways
)

// PubkeyAuth says whether public key authentication is tried; unbound and host-bound differ in
// an extension of the protocol only.
type PubkeyAuth int

// Values of PubkeyAuthentication.
const (
	PubkeyNo PubkeyAuth = iota
	PubkeyYes
	PubkeyUnbound
	PubkeyHostBound
)

// AddKeys is AddKeysToAgent: no, yes, ask or confirm, and for how long (0: for ever).
type AddKeys struct {
	Mode     string
	Lifetime time.Duration
}

// Identity is one private key file. Explicit ones were named by the user; the others are the
// default names, which may be missing without a word.
type Identity struct {
	Path     string
	Explicit bool
}

// Jump is one host of ProxyJump, in the order of the way. User and Port are empty where not given.
type Jump struct {
	User string
	Host string
	Port int
}

// StdioForward is -W: a TCP address, or the path of a socket on the node.
type StdioForward struct {
	Host string
	Port int
	Path string
}

// Forward is one of LocalForward, RemoteForward, DynamicForward. BindPath or Path are set where
// that side is a unix socket. A RemoteForward without Host and Path is a SOCKS listener on the
// node; a DynamicForward never has them.
type Forward struct {
	BindAddr string // "" = the default, "*" = all addresses
	BindPort int
	BindPath string
	Host     string
	HostPort int
	Path     string
}

// Rekey is when keys are exchanged anew: after so many bytes or so much time; 0 = the default, none.
type Rekey struct {
	Bytes    int64
	Interval time.Duration
}

// LogLevel is how much is logged.
type LogLevel int

// Log levels, in OpenSSH's order.
const (
	LogQuiet LogLevel = iota
	LogFatal
	LogError
	LogInfo
	LogVerbose
	LogDebug1
	LogDebug2
	LogDebug3
)

// Shows reports whether a line of report.Logf's level (-1 error, 0 info, 1 to 3 debug) is shown.
func (l LogLevel) Shows(level int) bool {
	switch {
	case level < 0:
		return l >= LogError
	case level == 0:
		return l >= LogInfo
	}
	return l >= LogVerbose+LogLevel(level)
}
