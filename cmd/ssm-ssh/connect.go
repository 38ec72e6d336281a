package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
	"ssm-ssh/internal/tty"
	"ssm-ssh/sshproxy"
)

// connect makes the SSH connection that the options describe: to a managed node by an SSM session,
// to any other host by TCP or its ProxyCommand. Closing the client ends everything below it, the
// SSM session too. ConnectTimeout bounds all up to the peer's first byte; after that a person may be
// asked for something.
func connect(ctx context.Context, opts *sshopt.Options, logf report.Logf) (*sshproxy.Client, error) {
	conn, err := dial(ctx, opts, logf)
	if err != nil {
		return nil, err
	}
	client, err := sshproxy.NewClient(ctx, conn, sshConfig(opts, conn, logf))
	if node, ok := conn.(*nodeConn); ok && err != nil {
		err = node.explain(err)
	}
	return client, err
}

// dial opens the byte stream to the SSH server.
func dial(ctx context.Context, opts *sshopt.Options, logf report.Logf) (net.Conn, error) {
	node, isNode := nodeOf(opts)
	limit := newConnectLimit(ctx, opts.ConnectTimeout)
	defer limit.release()
	switch {
	case isNode:
		return dialNode(limit, node, opts, logf)
	case opts.ProxyCommand != "":
		return dialProxy(limit.ctx, opts, logf)
	default:
		return dialTCP(limit.ctx, opts, logf)
	}
}

var errConnectTimeout = errors.New("ConnectTimeout is over")

// nodeOf tells whether the options lead to a managed node (docs/decisions/003: by the form of the
// name or by our keyword, never by asking AWS).
func nodeOf(opts *sshopt.Options) (target.Target, bool) {
	name := opts.NodeName()
	if name == "" {
		return target.Target{}, false
	}
	node, ok := target.Parse(name)
	if !ok {
		return target.Target{Name: name}, opts.SSMTarget != ""
	}
	if opts.SSMRegion != "" {
		node.Region = opts.SSMRegion
	}
	if opts.SSMProfile != "" {
		node.Profile = opts.SSMProfile
	}
	return node, true
}

// textErrorf is a failure for which OpenSSH has the words.
func textErrorf(cause error, format string, args ...any) error {
	return &sshproxy.TextError{Text: fmt.Sprintf(format, args...), Err: cause}
}

// reason gives the system's own words for an error, as strerror(3) has them.
func reason(err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.Is(err, errNotBound):
		return errNotBound.Error()
	case errors.As(err, &errno):
		return capitalized(errno.Error())
	case errors.Is(err, errConnectTimeout), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return "Connection timed out"
	}
	return err.Error()
}

// capitalized turns Go's lower-case error strings into libc's.
func capitalized(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}

// sshConfig hands the options on to the SSH client.
func sshConfig(opts *sshopt.Options, conn net.Conn, logf report.Logf) sshproxy.Config {
	cfg := sshproxy.Config{
		User: opts.User, Host: opts.Host, Port: opts.Port, HostKeyAlias: opts.HostKeyAlias,
		Addr:                  peerAddress(conn),
		UserKnownHostsFile:    opts.UserKnownHostsFile,
		GlobalKnownHostsFile:  opts.GlobalKnownHostsFile,
		StrictHostKeyChecking: opts.StrictHostKeyChecking,
		HashKnownHosts:        opts.HashKnownHosts,
		RevokedHostKeys:       opts.RevokedHostKeys,
		KnownHostsCommand:     opts.KnownHostsCommandArgs,
		UpdateHostKeys:        opts.UpdateHostKeys,

		HostKeyAlgorithms:      opts.HostKeyAlgorithms,
		HostKeyAlgorithmsFixed: opts.HostKeyOrderFixed,
		CASignatureAlgorithms:  opts.CASignatureAlgorithms,
		FingerprintHash:        opts.FingerprintHash,
		VisualHostKey:          opts.VisualHostKey,

		NoHostAuthenticationForLocalhost: opts.NoHostAuthenticationForLocalhost,

		ForwardX11:           opts.ForwardX11,
		PortForwarding:       len(opts.LocalForward)+len(opts.DynamicForward)+len(opts.RemoteForward) > 0,
		ExitOnForwardFailure: opts.ExitOnForwardFailure,

		CertificateFile:     opts.CertificateFile,
		IdentitiesOnly:      opts.IdentitiesOnly,
		AgentSocket:         opts.AgentSocket,
		AddKeysToAgent:      addKeys(opts.AddKeysToAgent),
		RequiredRSASize:     opts.RequiredRSASize,
		SecurityKeyProvider: opts.SecurityKeyProvider,

		PreferredAuthentications:     opts.PreferredAuthentications,
		PubkeyAuthentication:         opts.PubkeyAuthentication != sshopt.PubkeyNo,
		PasswordAuthentication:       opts.PasswordAuthentication,
		KbdInteractiveAuthentication: opts.KbdInteractiveAuthentication,
		NumberOfPasswordPrompts:      opts.NumberOfPasswordPrompts,
		BatchMode:                    opts.BatchMode,
		ForwardAgent:                 opts.ForwardAgent,
		ForwardAgentSocket:           opts.ForwardAgentSocket,

		Ciphers: opts.Ciphers, MACs: opts.MACs, KexAlgorithms: opts.KexAlgorithms,
		PubkeyAcceptedAlgorithms: opts.PubkeyAcceptedAlgorithms,
		RekeyLimitBytes:          uint64(max(opts.RekeyLimit.Bytes, 0)),
		ServerAliveInterval:      opts.ServerAliveInterval,
		ServerAliveCountMax:      opts.ServerAliveCountMax,
		ConnectTimeout:           opts.ConnectTimeout,
		ChannelKeepAlive:         opts.SSMKeepAlive,
		UTF8:                     hasUTF8(os.Getenv),
		Prompt:                   prompter(logf),
		Logf:                     logf,
	}
	cfg.Verbose = opts.LogLevel >= sshopt.LogVerbose
	cfg.LastWords = func(err error) string { return lastWords(opts.Host, err) }
	if node, ok := conn.(*nodeConn); ok {
		cfg.LinkDown, cfg.Another = node.linkDown, node.another()
	}
	if opts.LogLevel.Shows(0) {
		cfg.Banner = os.Stderr // also where the log goes to a file
	}
	for _, id := range opts.IdentityFile {
		cfg.IdentityFile = append(cfg.IdentityFile, sshproxy.Identity{Path: id.Path, Explicit: id.Explicit})
	}
	return cfg
}

// prompter asks the user, and says in OpenSSH's words when the askpass program can't be run (readpass.c).
func prompter(logf report.Logf) *tty.Prompter {
	return &tty.Prompter{AskpassFailed: func(program string, err error) {
		logf(-1, "ssh_askpass: exec(%s): %s", program, reason(err))
	}}
}

// addKeys reads AddKeysToAgent as the SSH client wants it.
func addKeys(how sshopt.AddKeys) sshproxy.AddKeys {
	return sshproxy.AddKeys{
		Add: how.Mode != "no", Ask: how.Mode == "ask", Confirm: how.Mode == "confirm", Lifetime: how.Lifetime,
	}
}

// peerAddress is the address shown in host key questions; there is none behind a proxy or a
// session.
func peerAddress(conn net.Conn) string {
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return addr.IP.String()
	}
	return ""
}
