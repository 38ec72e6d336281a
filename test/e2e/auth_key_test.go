package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ssm-ssh/internal/testenv"
)

// keyServer is a real sshd, one process a connection, that both clients reach by the same ProxyCommand.
type keyServer struct {
	*rig
	config string
}

func startKeyServer(r *rig, lines ...string) *keyServer {
	r.Helper()
	testenv.Need(r, "sshd", "ssh-keygen")
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where sshd locks its child in
			r.Fatal(err)
		}
	}
	host := r.sshKeygen("host", "-N", "")
	public, err := os.ReadFile(host + ".pub")
	if err != nil {
		r.Fatal(err)
	}
	r.writeFile("known_hosts", "node "+string(public))
	lines = append(lines, "HostKey "+host, "UsePAM no", "StrictModes no", "PidFile none", "PermitRootLogin yes",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "AuthorizedKeysFile "+r.path("authorized_keys"))
	return &keyServer{rig: r, config: r.writeFile("sshd_config", strings.Join(lines, "\n")+"\n")}
}

// authorize lets the owner of a key in.
func (s *keyServer) authorize(key, options string) {
	s.Helper()
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		s.Fatal(err)
	}
	f, err := os.OpenFile(s.path("authorized_keys"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, strings.TrimSpace(options+" "+string(public)))
}

// offer is how a log tells of a key; which of the two clients says so doesn't matter.
var offer = regexp.MustCompile(`(?m)^debug1: (?:Will attempt key|Offering public key|Server accepts key|Trying private key): .*$`)

// bothSay runs a command with both clients, on a terminal where there are answers, and wants the same words and
// status, and with -v the same keys in the same order.
func (s *keyServer) bothSay(env []string, answers []answer, args []string) said {
	s.Helper()
	one := func(program string) said {
		cmd := exec.Command(program, s.args(args)...)
		cmd.Env = env
		var got said
		if answers != nil {
			got = s.dialogue(cmd, answers)
		} else {
			res := s.run(cmd)
			got = said{stdout: res.stdout, stderr: res.stderr, status: res.status}
		}
		if strings.Contains(got.stderr, "debug1: ") {
			got.tried, got.stderr = offer.FindAllString(got.stderr, -1), ""
		}
		return got
	}
	want, got := one(testenv.Tool(s, "ssh")), one(binary)
	// Its reason for what is no key depends on the cryptographic library.
	want.stderr = strings.ReplaceAll(want.stderr, "error in libcrypto", "invalid format")
	if !got.equal(want) {
		s.Errorf("ssm-ssh: %v\nssh: %v", got, want)
	}
	return got
}

func (s *keyServer) args(options []string) []string {
	me, err := user.Current()
	if err != nil {
		s.Fatal(err)
	}
	args := append([]string{"-F", "none", "-l", me.Username}, options...)
	return append(args, "-oIdentityAgent=none", "-oUserKnownHostsFile="+s.path("known_hosts"),
		"-oProxyCommand="+testenv.Tool(s, "sshd")+" -i -f "+s.config+" -E "+s.path("sshd.log"), "node", "echo in")
}

// agent starts an ssh-agent that holds keys.
func (r *rig) agent(keys ...string) (socket string) {
	r.Helper()
	testenv.Need(r, "ssh-agent", "ssh-add")
	dir, err := os.MkdirTemp("", "agent") // short: a socket's path has a limit
	if err != nil {
		r.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	cmd := r.prepare(exec.Command("ssh-agent", "-D", "-a", socket))
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); os.RemoveAll(dir) })
	r.await("the agent", func() bool { return r.sshAdd(socket, "-l").status != 2 })
	for _, key := range keys {
		if got := r.sshAdd(socket, "-q", key); got.status != 0 {
			r.Fatalf("ssh-add: %+v", got)
		}
	}
	return socket
}

func (r *rig) sshAdd(socket string, args ...string) result {
	cmd := exec.Command("ssh-add", args...)
	cmd.Env = []string{"SSH_AUTH_SOCK=" + socket}
	return r.run(cmd)
}

// TestKeysAreStock compares which keys are tried in which order, from where, what is asked, and what is said.
func TestKeysAreStock(t *testing.T) {
	t.Parallel()
	r := newAuthRig(t)
	s := startKeyServer(r, "MaxAuthTries 6")
	good, goodRSA, goodECDSA := r.sshKeygen("good", "-N", ""), r.sshKeygen("rsa", "-N", "", "-t", "rsa"), r.sshKeygen("ecdsa", "-N", "", "-t", "ecdsa")
	secret, refused := r.sshKeygen("secret", "-N", "open sesame"), r.sshKeygen("refused", "-N", "never asked")
	pem, small := r.sshKeygen("pem", "-N", "", "-t", "rsa", "-m", "PEM"), r.sshKeygen("small", "-N", "", "-t", "rsa", "-b", "1024")
	secretPEM := r.sshKeygen("secretpem", "-N", "open sesame", "-t", "ecdsa", "-m", "PEM")
	for _, key := range []string{good, goodRSA, goodECDSA, secret, pem, small, secretPEM} {
		s.authorize(key, "")
	}
	for _, key := range []string{pem, secretPEM} {
		if err := os.Remove(key + ".pub"); err != nil {
			t.Fatal(err)
		}
	}
	held, alsoHeld := r.sshKeygen("held", "-N", ""), r.sshKeygen("alsoheld", "-N", "")
	s.authorize(held, "")
	full := r.agent(alsoHeld, held)
	for _, key := range []string{held, alsoHeld} {
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
	}
	asking := r.agent()
	if got := r.sshAdd(asking, "-q", "-c", good); got.status != 0 { // it has nobody to ask, so it refuses
		t.Fatalf("ssh-add: %+v", got)
	}
	bad := r.sshKeygen("bad", "-N", "")
	if err := os.Chmod(bad, 0o640); err != nil {
		t.Fatal(err)
	}
	garbage := r.writeFile("garbage", "no key\n")
	swapped := r.path("swapped")
	r.copyFile(goodRSA, swapped)
	r.copyFile(good+".pub", swapped+".pub")
	others := []string{}
	for i := range 7 {
		others = append(others, "-i", r.sshKeygen(fmt.Sprint("other", i), "-N", ""))
	}
	const pass = "Enter passphrase for key '"
	at := func(socket string) []string { return []string{"-oIdentityAgent=" + socket} }
	tests := []struct {
		name    string
		full    bool // not in short mode
		args    []string
		env     []string
		answers []answer
		status  int
	}{
		{name: "file", full: true, args: []string{"-i", good}},
		{name: "file, told", args: []string{"-v", "-i", good}},
		{name: "rsa and ecdsa, told", full: true, args: []string{"-v", "-oPubkeyAcceptedAlgorithms=rsa-*,ecdsa-*", "-i", good, "-i", goodECDSA, "-i", goodRSA}},
		{name: "old format, told", args: []string{"-v", "-i", pem}},
		{name: "missing", args: []string{"-i", r.path("absent"), "-i", good}},
		{name: "too open", args: []string{"-i", bad}, status: 255},
		{name: "garbage", full: true, args: []string{"-i", garbage}, status: 255},
		{name: "unreadable folder", full: true, args: []string{"-i", r.dir}, status: 255},
		{name: "public half of another", full: true, args: []string{"-i", swapped}, status: 255},
		{name: "passphrase", args: []string{"-i", secret}, answers: []answer{{pass + secret + "': ", "open sesame\n"}}},
		{name: "passphrase, old format", full: true, args: []string{"-i", secretPEM}, answers: []answer{{pass + secretPEM + "': ", "open sesame\n"}}},
		{name: "third passphrase", full: true, args: []string{"-i", secret}, answers: []answer{{pass, "x\n"}, {pass, "y\n"}, {pass, "open sesame\n"}}},
		{name: "three wrong ones", full: true, args: []string{"-i", secret}, answers: []answer{{pass, "x\n"}, {pass, "y\n"}, {pass, "z\n"}}, status: 255},
		{name: "no passphrase", full: true, args: []string{"-i", secret, "-i", good}, answers: []answer{{pass, "\n"}}},
		{name: "refused, so not asked", args: []string{"-i", refused, "-i", good}, answers: []answer{}},
		{name: "batch", full: true, args: []string{"-oBatchMode=yes", "-i", secret}, status: 255},
		{name: "no terminal", full: true, args: []string{"-i", secret}, status: 255},
		{name: "too many", args: others, status: 255},
		{name: "too many, the right one last", full: true, args: append([]string{"-i", good}, others...)},
		{name: "short rsa", full: true, args: []string{"-v", "-i", small, "-oRequiredRSASize=2048"}, status: 255},
		{name: "short rsa, said", args: []string{"-i", small, "-oRequiredRSASize=2048"}, status: 255},
		{name: "switched off", full: true, args: []string{"-i", good, "-oPubkeyAuthentication=no"}, status: 255},
		{name: "none", full: true, args: []string{"-i", "none"}, status: 255},

		{name: "agent, told", full: true, args: append(at(full), "-v", "-i", "none")},
		{name: "agent by SSH_AUTH_SOCK", full: true, args: []string{"-oIdentityAgent=SSH_AUTH_SOCK", "-i", "none"}, env: []string{"SSH_AUTH_SOCK=" + full}},
		{name: "agent by variable", full: true, args: []string{"-oIdentityAgent=$MY_AGENT", "-i", "none"}, env: []string{"MY_AGENT=" + full}},
		{name: "agent none", full: true, args: []string{"-oIdentityAgent=none", "-i", "none"}, env: []string{"SSH_AUTH_SOCK=" + full}, status: 255},
		{name: "agent dead", args: append(at(r.path("dead")), "-v", "-i", good)},
		{name: "agent and files, told", args: append(at(full), "-v", "-i", refused, "-i", good)},
		{name: "agent by public half, told", args: append(at(full), "-v", "-oIdentitiesOnly=yes", "-i", held+".pub")},
		{name: "agent by name, told", full: true, args: append(at(full), "-v", "-oIdentitiesOnly=yes", "-oIdentityFile="+held)},
		{name: "agent not named, told", full: true, args: append(at(full), "-v", "-oIdentitiesOnly=yes", "-i", good)},
		{name: "agent refuses", args: append(at(asking), "-i", "none", "-i", goodRSA)},
		{name: "agent only by name", full: true, args: append(at(full), "-oIdentitiesOnly=yes", "-i", "none"), status: 255},
	}
	for _, tt := range tests {
		if tt.full && testing.Short() {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			sub := &keyServer{rig: r.under(t), config: s.config}
			if got := sub.bothSay(tt.env, tt.answers, tt.args); got.status != tt.status {
				t.Errorf("status %d, want %d: %v", got.status, tt.status, got)
			}
		})
	}
}

// TestCertificatesAreStock has certificates in each place where ssh looks for them.
func TestCertificatesAreStock(t *testing.T) {
	t.Parallel()
	r := newAuthRig(t)
	s := startKeyServer(r)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ca := r.sshKeygen("ca", "-N", "")
	s.authorize(ca, "cert-authority")
	sign := func(key string, args ...string) {
		t.Helper()
		args = append([]string{"-q", "-s", ca, "-I", "id"}, append(args, key+".pub")...)
		if got := r.run(exec.Command("ssh-keygen", args...)); got.status != 0 {
			t.Fatalf("ssh-keygen: %+v", got)
		}
	}
	beside := r.sshKeygen("beside", "-N", "")
	sign(beside, "-n", me.Username)
	elsewhere := r.sshKeygen("elsewhere", "-N", "", "-t", "rsa")
	sign(elsewhere, "-n", me.Username)
	cert := r.path("named-cert.pub")
	if err := os.Rename(elsewhere+"-cert.pub", cert); err != nil {
		t.Fatal(err)
	}
	wrong := r.sshKeygen("wrong", "-N", "")
	sign(wrong, "-n", "somebody-else")
	expired := r.sshKeygen("expired", "-N", "")
	sign(expired, "-n", me.Username, "-V", "20200101:20200102")
	bare := r.sshKeygen("bare", "-N", "", "-t", "rsa", "-m", "PEM")
	sign(bare, "-n", me.Username)
	if err := os.Remove(bare + ".pub"); err != nil {
		t.Fatal(err)
	}
	secret := r.sshKeygen("secret", "-N", "open sesame")
	sign(secret, "-n", me.Username)
	socket := r.agent(elsewhere)
	withCert := r.agent(beside) // ssh-add takes the certificate, too
	tests := []struct {
		name    string
		full    bool // not in short mode
		args    []string
		answers []answer
		status  int
	}{
		{name: "beside the key", full: true, args: []string{"-i", beside}},
		{name: "beside, told", args: []string{"-v", "-i", beside}},
		{name: "named", args: []string{"-v", "-i", elsewhere, "-oCertificateFile=" + cert}},
		{name: "named, key in the agent", full: true, args: []string{"-v", "-i", elsewhere + ".pub", "-oIdentitiesOnly=yes", "-oCertificateFile=" + cert, "-oIdentityAgent=" + socket}},
		{name: "named, without its key", full: true, args: []string{"-i", "none", "-oCertificateFile=" + cert}, status: 255},
		{name: "in the agent", full: true, args: []string{"-v", "-i", "none", "-oIdentityAgent=" + withCert}},
		{name: "in the agent and a file", full: true, args: []string{"-v", "-i", beside, "-oIdentityAgent=" + withCert}},
		{name: "key of no public half", args: []string{"-v", "-i", bare, "-oCertificateFile=" + bare + "-cert.pub"}},
		{name: "wrong principal", args: []string{"-i", wrong}, status: 255},
		{name: "expired", full: true, args: []string{"-i", expired}, status: 255},
		{name: "not there", full: true, args: []string{"-i", beside, "-oCertificateFile=" + r.path("absent")}, status: 255},
		{name: "a plain key", full: true, args: []string{"-v", "-i", beside, "-oCertificateFile=" + beside + ".pub"}, status: 255},
		{name: "not among the algorithms", full: true, args: []string{"-v", "-i", beside, "-oPubkeyAcceptedAlgorithms=-*cert*"}, status: 255},
		{name: "passphrase", args: []string{"-i", secret}, answers: []answer{{"Enter passphrase for key '" + secret + "': ", "open sesame\n"}}},
	}
	for _, tt := range tests {
		if tt.full && testing.Short() {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			sub := &keyServer{rig: r.under(t), config: s.config}
			if got := sub.bothSay(nil, tt.answers, tt.args); got.status != tt.status {
				t.Errorf("status %d, want %d: %v", got.status, tt.status, got)
			}
		})
	}
}

// TestTwoKeysAreStock is for a host that wants several proofs.
func TestTwoKeysAreStock(t *testing.T) {
	t.Parallel()
	r := newAuthRig(t)
	s := startKeyServer(r, "AuthenticationMethods publickey,publickey")
	one, two, stranger := r.sshKeygen("one", "-N", ""), r.sshKeygen("two", "-N", ""), r.sshKeygen("stranger", "-N", "")
	s.authorize(one, "")
	s.authorize(two, "")
	for _, tt := range []struct {
		name   string
		keys   []string
		status int
	}{
		{"two", []string{one, two}, 0},
		{"one between strangers", []string{stranger, one, two}, 0},
		{"turned round", []string{two, stranger, one}, 0},
		{"one only", []string{one}, 255},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"-v"}
			for _, key := range tt.keys {
				args = append(args, "-i", key)
			}
			sub := &keyServer{rig: r.under(t), config: s.config}
			sub.bothSay(nil, nil, args)
			if got := sub.bothSay(nil, nil, args[1:]); got.status != tt.status {
				t.Errorf("status %d, want %d", got.status, tt.status)
			}
		})
	}
}
