package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// TestQuestionsAreStock compares whole dialogues on a terminal: what is asked, what is shown of the answers, and how
// it ends.
func TestQuestionsAreStock(t *testing.T) {
	t.Parallel()
	const pw, again = "u@127.0.0.1's password: ", "Permission denied, please try again."
	password := ssh.ServerConfig{PasswordCallback: passwordIs("right")}
	questions := ssh.ServerConfig{KeyboardInteractiveCallback: answersAre("Title", "Please", "1", "2")}
	hostile := ssh.ServerConfig{KeyboardInteractiveCallback: answersAre("Ti\x1b[2Jtle", "two\r\nlines", "1", "2")}
	both := ssh.ServerConfig{PasswordCallback: passwordIs("right"), KeyboardInteractiveCallback: answersAre("", "", "1", "2")}
	inTurn := ssh.ServerConfig{PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) {
		return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{KeyboardInteractiveCallback: answersAre("", "", "1", "2")}}
	}}
	tests := []struct {
		name    string
		server  ssh.ServerConfig
		options []string
		answers []answer
	}{
		{"password", password, nil, []answer{{pw, "right\n"}}},
		{"second password", password, nil, []answer{{pw, "x\n"}, {again, ""}, {pw, "right\n"}}},
		{"three wrong", password, nil, []answer{{pw, "x\n"}, {pw, "y\n"}, {pw, "z\n"}}},
		{"one try", password, []string{"-oNumberOfPasswordPrompts=1"}, []answer{{pw, "x\n"}}},
		{"empty", password, []string{"-oNumberOfPasswordPrompts=1"}, []answer{{pw, "\n"}}},
		{"end of input", password, []string{"-oNumberOfPasswordPrompts=1"}, []answer{{pw, "\x04"}}},
		{"quiet", password, []string{"-q"}, []answer{{pw, "x\n"}, {pw, "y\n"}, {pw, "z\n"}}},
		{"alias", password, []string{"-oHostKeyAlias=[127.0.0.1]:PORT", "-oStrictHostKeyChecking=yes"},
			[]answer{{"u@[127.0.0.1]:PORT's password: ", "right\n"}}},
		{"questions", questions, nil, []answer{{"(u@127.0.0.1) Code: ", "1\n"}, {"(u@127.0.0.1) Name: ", "2\n"}}},
		{"wrong answers", questions, nil, []answer{{"Code: ", "1\n"}, {"Name: ", "1\n"}, {"Code: ", "1\n"}, {"Name: ", "2\n"}}},
		{"hostile texts", hostile, nil, []answer{{"Code: ", "1\n"}, {"Name: ", "2\n"}}},
		{"questions first", both, []string{"-oNumberOfPasswordPrompts=1"},
			[]answer{{"Code: ", "x\n"}, {"Name: ", "x\n"}, {pw, "right\n"}}},
		{"password preferred", both, []string{"-oPreferredAuthentications=password,keyboard-interactive"}, []answer{{pw, "right\n"}}},
		{"only what is preferred", both, []string{"-oPreferredAuthentications=password", "-oNumberOfPasswordPrompts=1"}, []answer{{pw, "x\n"}}},
		{"switched off", both, []string{"-oKbdInteractiveAuthentication=no"}, []answer{{pw, "right\n"}}},
		{"in turn", inTurn, nil, []answer{{pw, "any\n"}, {"Code: ", "1\n"}, {"Name: ", "2\n"}}},
		{"in turn, then wrong", inTurn, []string{"-oNumberOfPasswordPrompts=1"}, []answer{{pw, "any\n"}, {"Code: ", "x\n"}, {"Name: ", "2\n"}}},
		{"batch", both, []string{"-oBatchMode=yes"}, nil},
		{"nothing in common", both, []string{"-oPreferredAuthentications=publickey"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newAuthRig(t)
			s := startAuthServer(r, &tt.server)
			port := strings.NewReplacer("PORT", s.port())
			for i := range tt.options {
				tt.options[i] = port.Replace(tt.options[i])
			}
			for i := range tt.answers {
				tt.answers[i].after = port.Replace(tt.answers[i].after)
			}
			s.sideBySide(r, nil, tt.answers, true, s.args(tt.options...))
		})
	}
}

// TestAskpassIsStock goes through all that decides between terminal, askpass program and no answer (ssh(1),
// SSH_ASKPASS_REQUIRE).
func TestAskpassIsStock(t *testing.T) {
	t.Parallel()
	requires := []string{"", "never", "prefer", "force", "Force", "other"}
	displays := [][]string{nil, {"DISPLAY="}, {"DISPLAY=:7"}}
	if testing.Short() {
		requires, displays = []string{"", "prefer", "force"}, displays[1:3]
	}
	r := newAuthRig(t)
	s := startAuthServer(r, &ssh.ServerConfig{PasswordCallback: passwordIs("right")})
	program := r.askpassProgram("echo right")
	for _, require := range requires {
		for _, display := range displays {
			for _, terminal := range []bool{false, true} {
				env := append([]string{"SSH_ASKPASS=" + program}, display...)
				if require != "" {
					env = append(env, "SSH_ASKPASS_REQUIRE="+require)
				}
				t.Run(strings.Join(append(env[1:], map[bool]string{true: "terminal", false: "none"}[terminal]), " "), func(t *testing.T) {
					var answers []answer
					shown := len(display) > 0 && !strings.HasSuffix(display[0], "=")
					if terminal && !(strings.EqualFold(require, "force") || require == "prefer" && shown) {
						answers = []answer{{"password: ", "right\n"}}
					}
					got := s.sideBySide(r.under(t), env, answers, terminal, s.args("-oNumberOfPasswordPrompts=1"))
					asked := strings.EqualFold(require, "force") || shown && require != "never" && answers == nil
					if (got.askpass != "") != asked {
						t.Errorf("askpass %q, want it asked: %v", got.askpass, asked)
					}
				})
			}
		}
	}
	t.Run("Wayland", func(t *testing.T) { // which OpenSSH 9.2 doesn't know yet
		r := r.under(t)
		got := s.alone(r, binary, []string{"SSH_ASKPASS=" + program, "WAYLAND_DISPLAY=w"}, nil, false, s.args("-oNumberOfPasswordPrompts=1"))
		if got.askpass == "" || got.status != 0 {
			t.Errorf("%v, want it asked", got)
		}
	})
}

// TestAskpassProgramsAreStock is about what the program does and says.
func TestAskpassProgramsAreStock(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, body, require string }{
		{"answers", "echo right", "force"},
		{"no line's end", "printf right", "force"},
		{"many lines", "echo right; echo wrong", "force"},
		{"return before the end", `printf 'right\r\nwrong'`, "force"},
		{"return in the line", `printf 'right\rwrong\n'`, "force"},
		{"empty", "true", "force"},
		{"fails", "echo right; exit 1", "force"},
		{"fails in silence", "exit 3", "prefer"},
		{"killed", "kill -9 $$", "force"},
		{"writes to stderr", "echo hear me >&2; echo right", "force"},
		{"very long", "head -c 5000 /dev/zero | tr '\\0' x 2>/dev/null", "force"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newAuthRig(t)
			s := startAuthServer(r, &ssh.ServerConfig{PasswordCallback: passwordIs("right"),
				KeyboardInteractiveCallback: answersAre("", "", "right", "right")})
			env := []string{"SSH_ASKPASS=" + r.askpassProgram(tt.body), "SSH_ASKPASS_REQUIRE=" + tt.require, "DISPLAY=:7"}
			s.sideBySide(r, env, nil, false, s.args())
		})
	}
	for _, program := range []string{"/nowhere/askpass", "", "true"} {
		t.Run("program "+program, func(t *testing.T) {
			r := newAuthRig(t)
			s := startAuthServer(r, &ssh.ServerConfig{PasswordCallback: passwordIs("right")})
			env := []string{"SSH_ASKPASS=" + program, "SSH_ASKPASS_REQUIRE=force"}
			s.sideBySide(r, env, nil, false, s.args())
		})
	}
}

// TestAskpassForHostKeyAndPassphrase has the questions that aren't passwords go the same way.
func TestAskpassForHostKeyAndPassphrase(t *testing.T) {
	r := newAuthRig(t)
	key := r.sshKeygen("key", "-N", "open sesame")
	s := startAuthServer(r, &ssh.ServerConfig{PublicKeyCallback: r.acceptKey(key)})
	program := r.askpassProgram(`case "$1" in *authenticity*) echo yes;; *) echo open sesame;; esac`)
	env := []string{"SSH_ASKPASS=" + program, "SSH_ASKPASS_REQUIRE=force"}
	got := s.sideBySide(r, env, nil, false, s.args("-i", key, "-oUserKnownHostsFile=/dev/null"))
	if got.status != 0 || strings.Count(got.askpass, "unset\n") != 2 {
		t.Errorf("not as it should be: %v", got)
	}
}

// TestSSHPass has sshpass answer, which looks for "assword" on the terminal that it makes.
func TestSSHPass(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sshpass")
	r := newAuthRig(t)
	key := r.sshKeygen("key", "-N", "open sesame")
	s := startAuthServer(r, &ssh.ServerConfig{PasswordCallback: passwordIs("right"), PublicKeyCallback: r.acceptKey(key)})
	for _, tt := range []struct {
		name   string
		args   []string
		ssh    []string
		status int
	}{
		{"right", []string{"-p", "right"}, nil, 0},
		{"wrong", []string{"-p", "wrong"}, nil, 5},
		{"passphrase", []string{"-P", "assphrase", "-p", "open sesame"}, []string{"-i", key}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got [2]result
			for i, program := range []string{testenv.Tool(t, "ssh"), binary} {
				got[i] = r.run(exec.Command("sshpass", append(append(tt.args, program), append(tt.ssh, s.args()...)...)...))
			}
			if got[0] != got[1] || got[1].status != tt.status {
				t.Errorf("ssh %+v, ssm-ssh %+v", got[0], got[1])
			}
		})
	}
}

// TestQuestionsOfAMaster has the questions come from the master, a process of its own, as with Ansible's
// ControlPersist; a second call is asked nothing.
func TestQuestionsOfAMaster(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sshpass")
	tests := []struct {
		name    string
		before  []string
		env     func(r *rig) []string
		answers []answer
	}{
		{name: "sshpass", before: []string{"sshpass", "-p", "right"}},
		{name: "askpass", env: func(r *rig) []string {
			return []string{"SSH_ASKPASS=" + r.askpassProgram("echo right"), "SSH_ASKPASS_REQUIRE=force"}
		}},
		{name: "terminal", answers: []answer{{"u@127.0.0.1's password: ", "wrong\n"}, {"please try again.", ""}, {"password: ", "right\n"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newAuthRig(t)
			dir, err := os.MkdirTemp("", "e2e") // a control path must be short
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "master")
			s := startAuthServer(r, &ssh.ServerConfig{PasswordCallback: passwordIs("right")})
			t.Cleanup(func() { r.run(exec.Command(binary, "-F", "none", "-S", path, "-O", "exit", "x")); os.RemoveAll(dir) })
			args := s.args("-oControlMaster=auto", "-oControlPersist=60s", "-oControlPath="+path)
			command := append(append(tt.before, binary), args...)
			cmd := exec.Command(command[0], command[1:]...)
			if tt.env != nil {
				cmd.Env = tt.env(r)
			}
			got := said{}
			if tt.answers != nil {
				got = r.dialogue(cmd, tt.answers)
			} else {
				res := r.run(cmd)
				got = said{stderr: res.stderr, status: res.status}
			}
			if tried := s.tried(); got.status != 0 || got.stderr != "" || len(tried) == 0 || tried[len(tried)-1] != "password true" {
				t.Errorf("first call: %v, tried %q", got, tried)
			}
			again := r.run(exec.Command(binary, args...))
			if tried := s.tried(); again.status != 0 || again.stderr != "" || len(tried) > 0 {
				t.Errorf("second call: %+v, tried %q", again, tried)
			}
		})
	}
}
