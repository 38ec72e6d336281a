package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/internal/target"
)

// nodeIdentity is what tells one node of one account from another, as far as that shows without
// asking anybody: not the rotating key, but the account in it.
type nodeIdentity struct {
	Target, Region, Profile, Account, Endpoint, Document string
	RemoteHost                                           string `json:",omitempty"` // beyond the node
	Port                                                 int    `json:",omitempty"` // of sshd, where SSMPort says it
}

// identityOf reads the identity out of options and environment.
func identityOf(opts *sshopt.Options, node target.Target) nodeIdentity {
	return nodeIdentity{
		Target:   node.NodeID,
		Region:   firstOf(node.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")),
		Profile:  firstOf(node.Profile, os.Getenv("AWS_PROFILE"), os.Getenv("AWS_DEFAULT_PROFILE")),
		Account:  accountOf(os.Getenv("AWS_ACCESS_KEY_ID")),
		Endpoint: firstOf(opts.SSMEndpoint, os.Getenv("AWS_ENDPOINT_URL_SSM"), os.Getenv("AWS_ENDPOINT_URL")),
		Document: documentOf(opts), RemoteHost: remoteHost(opts), Port: opts.SSMPort,
	}
}

// digest is the identity as a master tells it to its clients.
func (id nodeIdentity) digest() string { return shortHash(id) }

// implicitKey is everything that changes who or where we are (docs/decisions/003). Two calls share a
// master that nobody asked for only when all of it agrees.
type implicitKey struct {
	nodeIdentity
	Host, User, HostKeyAlias      string
	Port                          int
	IdentityFile, CertificateFile []string
	IdentityAgent                 string
	IdentitiesOnly                bool
	Authentication                []string
	ProxyJump                     string
	ForwardAgent                  string
	KnownHosts                    []string
	StrictHostKeyChecking         string
}

// implicitKeyOf reads the key out of the options.
func implicitKeyOf(opts *sshopt.Options, id nodeIdentity) implicitKey {
	key := implicitKey{
		nodeIdentity: id,
		Host:         opts.Host, User: opts.User, Port: opts.Port, HostKeyAlias: opts.HostKeyAlias,
		CertificateFile: opts.CertificateFile, IdentityAgent: opts.AgentSocket, IdentitiesOnly: opts.IdentitiesOnly,
		Authentication: opts.PreferredAuthentications, ProxyJump: opts.ProxyCommand,
		KnownHosts:            slices.Concat(opts.UserKnownHostsFile, opts.GlobalKnownHostsFile),
		StrictHostKeyChecking: opts.StrictHostKeyChecking,
	}
	for _, file := range opts.IdentityFile {
		key.IdentityFile = append(key.IdentityFile, file.Path)
	}
	if opts.ForwardAgent {
		key.ForwardAgent = firstOf(opts.ForwardAgentSocket, opts.AgentSocket)
	}
	return key
}

// controlPath returns the socket's path in dir. It is short: sun_path holds 104 bytes on macOS,
// whose temporary folders have long names.
func (k implicitKey) controlPath(dir string) string { return filepath.Join(dir, shortHash(k)) }

// hashLetters is the length of shortHash's names.
const hashLetters = 16

// shortHash names a value in a few letters.
func shortHash(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("value cannot be encoded: " + err.Error()) // strings and numbers always can
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:hashLetters/2])
}

// errNoRuntimeDir says that there is no place for implicit control sockets and locks.
var errNoRuntimeDir = errors.New("no runtime folder")

// runtimeDir returns the folder of implicit control sockets and of the locks, and makes it. It
// must be ours and closed to others: who may write there may stand in for a master. XDG_RUNTIME_DIR
// must be the user's own (XDG Base Directory Specification): su and sudo may leave us another's, where a
// folder of ours would be in its owner's way.
func runtimeDir() (string, error) {
	base, name := os.Getenv("XDG_RUNTIME_DIR"), "ssm-ssh"
	if info, err := os.Stat(base); base == "" || err != nil || !isOurFolder(info) {
		base, name = os.TempDir(), "ssm-ssh-"+strconv.Itoa(os.Getuid())
	}
	dir := filepath.Join(base, name)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("%w: %w", errNoRuntimeDir, err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNoRuntimeDir, err)
	}
	if !isOurFolder(info) || info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%w: %s must be a folder of this user with mode 0700", errNoRuntimeDir, dir)
	}
	return dir, nil
}

func isOurFolder(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return info.IsDir() && ok && int(st.Uid) == os.Getuid()
}

// creationLock serialises the making of the master of one control path: of many calls that come at
// once to a cold path one makes it, the others wait and then ride. The lock is flock(2)'s: it goes
// with its holder, however that dies.
type creationLock struct{ f *os.File }

// lockSuffix ends the names of lock files.
const lockSuffix = ".lock"

// lockCreation waits for the lock of a control path, until ctx ends. The lock file lies in the
// runtime folder, whoever's folder the socket is in, so that nothing is left beside it.
func lockCreation(ctx context.Context, path string) (*creationLock, error) {
	dir, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	type result struct {
		lock *creationLock
		err  error
	}
	locked := make(chan result, 1)
	// flock can't be given up, so this goroutine outlives a wait that ended; the process ends with
	// that wait, and the lock with the process.
	go func() {
		lock, err := takeLock(filepath.Join(dir, shortHash(path)+lockSuffix))
		locked <- result{lock, err}
	}()
	select {
	case r := <-locked:
		return r.lock, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// takeLock locks a file, which it makes where there is none. One that was removed before it was locked,
// by tidyRuntime, is nobody's lock any more.
func takeLock(name string) (*creationLock, error) {
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoRuntimeDir, err)
		}
		if err := flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("%w: %w", errNoRuntimeDir, err)
		}
		ours, err := f.Stat()
		named, lostErr := os.Lstat(name)
		if err == nil && lostErr == nil && os.SameFile(ours, named) {
			return &creationLock{f}, nil
		}
		f.Close()
		if err := errors.Join(err, ignoreNotExist(lostErr)); err != nil {
			return nil, err
		}
	}
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// flock takes the lock, through the interruptions that a Go program has many of.
func flock(fd, how int) error {
	for {
		if err := syscall.Flock(fd, how); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// unlock lets the next one in. A nil lock was never had.
func (l *creationLock) unlock() {
	if l != nil {
		l.f.Close()
	}
}
