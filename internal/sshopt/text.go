package sshopt

// Texts that OpenSSH 9.2p1 prints (ssh.c, main and usage). Tools look for some of them; none may
// be reworded. usage begins in lower case: Ansible takes "Usage:" for an ssh without ControlPersist.
const (
	textUsage = `usage: ssh [-46AaCfGgKkMNnqsTtVvXxYy] [-B bind_interface]
           [-b bind_address] [-c cipher_spec] [-D [bind_address:]port]
           [-E log_file] [-e escape_char] [-F configfile] [-I pkcs11]
           [-i identity_file] [-J [user@]host[:port]] [-L address]
           [-l login_name] [-m mac_spec] [-O ctl_cmd] [-o option] [-p port]
           [-Q query_option] [-R address] [-S ctl_path] [-W host:port]
           [-w local_tun[:remote_tun]] destination [command [argument ...]]`

	textBadHost          = "hostname contains invalid characters"
	textBadUser          = "remote username contains invalid characters"
	textNoSubsystem      = "You must specify a subsystem to invoke."
	textProtocol1        = "SSH protocol v.1 is no longer supported"
	textSyslogAndFile    = "Can't specify both -y and -E"
	textNoSessionAndType = "Cannot specify -N with -s/SessionType"
	textSubsystemAndType = "Cannot specify -s with -N/SessionType"
	textMuxAndStdio      = "Cannot specify multiplexing command with -W"
	textMuxTwice         = "Multiplexing command already specified"
	textBadMuxCommand    = "Invalid multiplex command."
	textStdioTwice       = "stdio forward already specified"
	textStdioAndMux      = "Cannot specify stdio forward with -O"
	textJumpTwice        = "Only a single -J option is permitted (use commas to separate multiple jump hops)"
	textJumpAndCommand   = "Cannot specify -J with ProxyCommand"
	textBadJump          = "Invalid -J argument"
	textCommandTwice     = "Cannot execute command-line and remote command."
	textNothingToFork    = "Cannot fork into background without a command to execute."
	textFdpassStdio      = "ProxyCommand=- and ProxyUseFDPass are incompatible"
	textBadAttempts      = "Invalid number of ConnectionAttempts"
	textNoControlPath    = "No ControlPath specified for \"-O\" command"
	textTooDeep          = "Too many recursive configuration includes"
	textNoTTY            = "Pseudo-terminal will not be allocated because stdin is not a terminal."
)

// exitStatus is ssh's status for everything that is its own.
const exitStatus = 255

// fatal returns an error that is logged.
func fatal(text string) *Error { return &Error{Text: text, Code: exitStatus} }

// plain returns an error that is printed as is, whatever the log level.
func plain(text string) *Error { return &Error{Text: text, Code: exitStatus, Raw: true} }

// usage returns the error that shows how to call the program.
func usage() *Error { return plain(textUsage) }
