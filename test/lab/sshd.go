package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// nodeVariable marks the processes of a node's SSH sessions, so that those that outlive their
	// session can be found when the lab ends.
	nodeVariable  = "SSM_SSH_LAB_NODE"
	sshdStartTime = 20 * time.Second
	probePause    = 5 * time.Millisecond
	portTries     = 5 // another program may take the port between our choice and sshd's bind
)

// sshdConfig is the node's sshd_config. Everything not named has OpenSSH's default, the limits
// (MaxSessions 10, MaxStartups 10:30:100, LoginGraceTime 120) above all.
const sshdConfig = `Port %[1]s
ListenAddress 127.0.0.1
%[2]sAuthorizedKeysFile %[3]s
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
AcceptEnv LANG LC_*
SetEnv %[4]s
Subsystem sftp %[5]s
`

// penaltiesOff is for sshd 9.8 and later, which locks out an address after failed logins; all
// nodes and tests share one address. Older ones do not know the keyword.
const penaltiesOff = "PerSourcePenalties no\n"

// sshdProcess is the system's sshd, run for one node.
type sshdProcess struct {
	binary  string
	dir     string
	node    string // value of nodeVariable
	keys    []hostKey
	authKey string // path of the AuthorizedKeysFile
	logf    func(int, string, ...any)

	mu     sync.Mutex
	listen string // the port, chosen at the first start and kept
	cmd    *exec.Cmd
	exited chan struct{}
}

// findSSHD returns the path of the system's sshd, "" when there is none.
func findSSHD() string {
	for _, dir := range append([]string{"/usr/sbin", "/usr/local/sbin", "/usr/libexec"}, filepath.SplitList(os.Getenv("PATH"))...) {
		path := filepath.Join(dir, "sshd")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

func (s *sshdProcess) port() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listen
}

func (s *sshdProcess) hostKeys() []string {
	var lines []string
	for _, k := range s.keys {
		lines = append(lines, k.public)
	}
	return lines
}

// start runs sshd and returns when it accepts connections.
func (s *sshdProcess) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sshdStartTime)
	defer cancel()
	var err error
	for range portTries {
		if err = s.tryStart(ctx); err == nil {
			return nil
		}
		if s.chosen() {
			break // a restarted node keeps its port
		}
	}
	return err
}

// chosen says whether the port is fixed already; if not, the next try takes another.
func (s *sshdProcess) chosen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listen != ""
}

func (s *sshdProcess) tryStart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		return nil
	}
	port := s.listen
	if port == "" {
		var err error
		if port, err = freePort(); err != nil {
			return err
		}
	}
	config, err := s.writeConfig(ctx, port)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "sshd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "-D", "-e", "-f", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting sshd: %w", err)
	}
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() { // waited for by stop, or below
		cmd.Wait()
		close(exited)
	}()
	if err := awaitPort(ctx, port, exited); err != nil {
		s.endLocked()
		return fmt.Errorf("starting sshd: %w: %s", err, lastLine(log.Name()))
	}
	s.listen = port
	return nil
}

// writeConfig writes sshd_config and has sshd check it.
func (s *sshdProcess) writeConfig(ctx context.Context, port string) (string, error) {
	var keys strings.Builder
	for _, k := range s.keys {
		fmt.Fprintf(&keys, "HostKey \"%s\"\n", k.path)
	}
	text := fmt.Sprintf(sshdConfig, port, keys.String(), `"`+s.authKey+`"`, nodeVariable+"="+s.node, sftpSubsystem())
	path := filepath.Join(s.dir, "sshd_config")
	var problem []byte
	for _, body := range []string{text + penaltiesOff, text} {
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			return "", err
		}
		var err error
		if problem, err = exec.CommandContext(ctx, s.binary, "-t", "-f", path).CombinedOutput(); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("checking sshd_config: %s", bytes.TrimSpace(problem))
}

// sftpSubsystem returns the real sftp-server where it is, as distributions configure it, else the
// one within sshd.
func sftpSubsystem() string {
	for _, path := range []string{"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server", "/usr/libexec/sftp-server"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "internal-sftp"
}

// stop ends sshd, the processes of its connections, and what their sessions left running.
func (s *sshdProcess) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
	return nil
}

func (s *sshdProcess) freeze(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	signal(append(descendants(s.cmd.Process.Pid), s.cmd.Process.Pid), sig)
}

func (s *sshdProcess) processes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	pid := s.cmd.Process.Pid
	return append([]int{pid}, descendants(pid)...)
}

func (s *sshdProcess) endLocked() {
	if s.cmd == nil {
		return
	}
	pid := s.cmd.Process.Pid
	children := descendants(pid)
	s.cmd.Process.Kill()
	<-s.exited
	signal(append(children, marked(nodeVariable, s.node)...), syscall.SIGKILL)
	s.cmd = nil
}

// awaitPort waits until somebody listens.
func awaitPort(ctx context.Context, port string, exited <-chan struct{}) error {
	for {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-exited:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(probePause):
		}
	}
}

// freePort returns a loopback port that was free a moment ago.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func lastLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}
