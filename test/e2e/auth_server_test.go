package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// authServer is an SSH server whose one answer to a session is exit status 0; what it is for comes before.
// A real sshd asks for the passwords of real users only.
type authServer struct {
	addr  *net.TCPAddr
	known string // a known_hosts file

	mu       sync.Mutex
	attempts []string
}

func startAuthServer(r *rig, config *ssh.ServerConfig) *authServer {
	r.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		r.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	s := &authServer{addr: l.Addr().(*net.TCPAddr), known: r.path("known_hosts")}
	line := fmt.Sprintf("[127.0.0.1]:%d %s", s.addr.Port, ssh.MarshalAuthorizedKey(signer.PublicKey()))
	r.writeFile("known_hosts", line)
	config.AddHostKey(signer)
	config.AuthLogCallback = func(_ ssh.ConnMetadata, method string, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.attempts = append(s.attempts, fmt.Sprint(method, " ", err == nil))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serveAuth(conn, config) })
		}
	})
	r.Cleanup(func() { l.Close(); wg.Wait() })
	return s
}

// serveAuth lets a client in and ends its session.
func serveAuth(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	sc, chans, reqs, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer sc.Close()
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		for req := range reqs {
			req.Reply(true, nil)
			if req.Type == "exec" {
				ch.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
				ch.Close()
			}
		}
	}
}

// tried returns what clients have tried since the last call.
func (s *authServer) tried() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	attempts := s.attempts
	s.attempts = nil
	return attempts
}

func (s *authServer) port() string { return strconv.Itoa(s.addr.Port) }

// args is a command line to the server; the first value of an option counts.
func (s *authServer) args(options ...string) []string {
	args := append([]string{"-F", "none", "-p", s.port(), "-l", "u"}, options...)
	return append(args, "-oIdentityFile=none", "-oIdentityAgent=none", "-oUserKnownHostsFile="+s.known, "127.0.0.1", "true")
}

// newAuthRig is a rig without a lab, for hosts that are reached by TCP or by a command.
func newAuthRig(t *testing.T) *rig {
	t.Helper()
	testenv.Need(t, "ssh")
	r := &rig{T: t, dir: t.TempDir(), limit: commandLimit}
	r.env = append(cleanEnv(), "XDG_RUNTIME_DIR="+r.dir, "XDG_CONFIG_HOME="+r.path("config"), "XDG_STATE_HOME="+r.path("state"))
	return r
}

func (r *rig) writeFile(name, text string) string {
	r.Helper()
	path := r.path(name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.Fatal(err)
	}
	return path
}

// under is the rig for a part of its test.
func (r *rig) under(t *testing.T) *rig {
	sub := *r
	sub.T = t
	return &sub
}

func (r *rig) copyFile(from, to string) {
	r.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o600)
	}
	if err != nil {
		r.Fatal(err)
	}
}

// sshKeygen makes a key, of type ed25519 unless args say another.
func (r *rig) sshKeygen(name string, args ...string) string {
	r.Helper()
	path := r.path(name)
	cmd := exec.Command(testenv.Tool(r, "ssh-keygen"), append([]string{"-q", "-a", "1", "-t", "ed25519", "-f", path}, args...)...)
	if got := r.run(cmd); got.status != 0 {
		r.Fatalf("ssh-keygen: %+v", got)
	}
	return path
}

// acceptKey lets those in who have the key.
func (r *rig) acceptKey(path string) func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
	r.Helper()
	text, err := os.ReadFile(path + ".pub")
	if err != nil {
		r.Fatal(err)
	}
	right, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		r.Fatal(err)
	}
	return func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) == string(right.Marshal()) {
			return nil, nil
		}
		return nil, errWrong
	}
}

// said is all that a call of a client shows to the world.
type said struct {
	stdout, stderr, terminal string
	status                   int
	tried                    []string
	askpass                  string
}

func (s said) String() string {
	return fmt.Sprintf("status %d, tried %q\nstdout %q\nstderr %q\nterminal %q\naskpass %q",
		s.status, s.tried, s.stdout, s.stderr, s.terminal, s.askpass)
}

func (s said) equal(other said) bool { return s.String() == other.String() }

// answer is what a user types when a text has shown up.
type answer struct{ after, text string }

// sideBySide runs a command line with OpenSSH's client and with ours, and wants the same of both. With answers it is
// on a terminal, where the texts must come in this order.
func (s *authServer) sideBySide(r *rig, env []string, answers []answer, terminal bool, args []string) said {
	r.Helper()
	want := s.alone(r, testenv.Tool(r, "ssh"), env, answers, terminal, args)
	if got := s.alone(r, binary, env, answers, terminal, args); !got.equal(want) {
		r.Errorf("ssm-ssh: %v\nssh: %v", got, want)
	}
	return want
}

// alone is one program's half of it.
func (s *authServer) alone(r *rig, program string, env []string, answers []answer, terminal bool, args []string) said {
	r.Helper()
	os.Remove(r.path("asked"))
	s.tried()
	cmd := exec.Command(program, args...)
	cmd.Env = env
	var got said
	if terminal {
		got = r.dialogue(cmd, answers)
	} else {
		res := r.run(cmd)
		got = said{stdout: res.stdout, stderr: res.stderr, status: res.status}
	}
	asked, _ := os.ReadFile(r.path("asked"))
	got.askpass, got.tried = string(asked), s.tried()
	return got
}

// dialogue runs a command on a terminal, and answers.
func (r *rig) dialogue(cmd *exec.Cmd, answers []answer) said {
	r.Helper()
	term := r.terminalOf(cmd)
	seen := 0
	for _, a := range answers {
		r.await(fmt.Sprintf("%q on the terminal", a.after), func() bool {
			term.mu.Lock()
			defer term.mu.Unlock()
			i := strings.Index(term.seen.String()[seen:], a.after)
			if i >= 0 {
				seen += i + len(a.after)
			}
			return i >= 0
		})
		if _, err := term.WriteString(a.text); err != nil {
			r.Fatal(err)
		}
	}
	cmd.Wait() //nolint:errcheck // the status is looked at
	<-term.done
	return said{terminal: term.seen.String(), status: cmd.ProcessState.ExitCode()}
}

var errWrong = errors.New("wrong")

// passwordIs lets those in who know the password.
func passwordIs(right string) func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
	return func(_ ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if string(password) == right {
			return nil, nil
		}
		return nil, errWrong
	}
}

// answersAre lets those in who give the answers to two questions, one of them shown as it is typed.
func answersAre(name, instruction string, right ...string) func(ssh.ConnMetadata, ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
	return func(_ ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
		got, err := ask(name, instruction, []string{"Code: ", "Name: "}, []bool{false, true})
		if err != nil || !slices.Equal(got, right) {
			return nil, errWrong
		}
		return nil, nil
	}
}

// askpassProgram writes a program that notes how it is called, and then does as body says.
func (r *rig) askpassProgram(body string) string {
	path := r.writeFile("askpass"+strconv.Itoa(len(body)), "#!/bin/sh\n"+
		`echo "$# [$1] ${SSH_ASKPASS_PROMPT-unset}" >>`+r.path("asked")+"\n"+body+"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		r.Fatal(err)
	}
	return filepath.Clean(path)
}
