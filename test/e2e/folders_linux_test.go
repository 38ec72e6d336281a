package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// nobody is a user who is not the one that the tests run as (Debian's; any other would do).
const nobody = 65534

// spoiltFolders are the ways in which a folder of ours can't be used. The script has the folder in $1 and runs in a mount
// namespace of its own.
type spoilt struct{ name, script, says string }

var spoiltFolders = []spoilt{
	{"full", `mount -t tmpfs -o size=4k,mode=700 none "$1" && head -c 4096 /dev/zero > "$1/fill"`, "no space left on device"},
	{"without inodes", `mount -t tmpfs -o nr_inodes=1,mode=700 none "$1"`, "no space left on device"},
	{"read-only", `mount -t tmpfs -o ro,mode=700 none "$1"`, "read-only file system"},
}

// needMounts ends the test where it may not mount anything.
func needMounts(t *testing.T) {
	t.Helper()
	testenv.Need(t, "unshare")
	if out, err := exec.Command("unshare", "-m", "true").CombinedOutput(); err != nil {
		testenv.Missing(t, fmt.Sprintf("a mount namespace of one's own takes root's rights: %s", out))
	}
}

// spoil begins a command line of the program's that runs after a script has spoilt a folder.
func spoil(script, dir string, args ...string) *exec.Cmd {
	return exec.Command("unshare", append([]string{"-m", "sh", "-c", "{ " + script + `; } && shift && exec "$@"`, "sh", dir, binary}, args...)...)
}

// TestUnusableStateFolder: what can't be written down is connected to all the same, with one line that tells what
// that costs; calls that follow have nothing to say, and the session is ended like any other.
func TestUnusableStateFolder(t *testing.T) {
	needMounts(t)
	for _, tt := range spoiltFolders {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, lab.Options{})
			if err := os.Mkdir(r.path("state"), 0o700); err != nil {
				t.Fatal(err)
			}
			r.wantWarned(r.run(spoil(tt.script, r.path("state"), r.target(), "echo here")), "keep a journal of sessions: .*"+tt.says+"; should this process be killed, its session ends at the idle time-out only")
			r.want(r.ssh(r.target(), "echo again"), 0, "again\n", "")
			r.wantWarned(r.run(spoil(tt.script, r.path("state"), "-S", "none", r.target(), "echo here")), "keep a journal of sessions: .*"+tt.says)
			r.wantSessions(2)
		})
	}
}

// TestStateFolderOfAnother: a journal in which another user might write is none.
func TestStateFolderOfAnother(t *testing.T) {
	r := newRig(t, lab.Options{})
	dir := filepath.Join(r.path("state"), "ssm-ssh", "sessions")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.giveAway(dir)
	r.wantWarned(r.ssh(r.target(), "echo here"), "keep a journal of sessions: .* must be a folder of this user")
	if got := r.ssh("sessions", "list"); got.status != 1 || !matches("must be a folder of this user", got.stderr) {
		t.Errorf("sessions list: %+v", got)
	}
}

// TestUnusableRuntimeFolder: a master that nobody has asked for isn't made where there is no place for its socket,
// and the call connects for itself; one with a path of the user's is made all the same.
func TestUnusableRuntimeFolder(t *testing.T) {
	needMounts(t)
	// Sockets and locks take no bytes, only an inode each.
	ways := append([]spoilt{{"with room for a folder only", `mount -t tmpfs -o nr_inodes=2,mode=700 none "$1"`, "no space left on device"}}, spoiltFolders[1:]...)
	for _, tt := range ways {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, lab.Options{})
			r.wantWarned(r.run(spoil(tt.script, r.runtime, r.target(), "echo here")), "share the connection: .*"+tt.says+"; each call makes its own")
			path := r.path("cp")
			r.want(r.run(spoil(tt.script, r.runtime, "-S", path, r.target(), "echo here")), 0, "here\n", "")
			r.want(r.run(stock(path, "x", "echo there")), 0, "there\n", "")
			r.wantSessions(2)
		})
	}
}

// TestRuntimeFolderOfAnother: after su or sudo XDG_RUNTIME_DIR may be another user's. It is let be, since a folder
// of ours would be in its owner's way; and one of another's where ours should be keeps nobody from connecting.
func TestRuntimeFolderOfAnother(t *testing.T) {
	r := newRig(t, lab.Options{})
	tmp := r.path("tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	call := func(args ...string) *exec.Cmd {
		cmd := exec.Command(binary, args...)
		cmd.Env = []string{"TMPDIR=" + tmp}
		return cmd
	}
	r.giveAway(r.runtime)
	r.want(r.run(call(r.target(), "echo here")), 0, "here\n", "")
	ours := filepath.Join(tmp, fmt.Sprintf("ssm-ssh-%d", os.Getuid()))
	if found, _ := os.ReadDir(r.runtime); len(found) > 0 || !exists(ours) {
		t.Errorf("another user's folder has %v now, and ours is there: %v", found, exists(ours))
	}
	r.want(r.run(call(r.target(), "echo again")), 0, "again\n", "")
	r.wantSessions(1)
	r.want(r.run(call("-O", "exit", r.target())), 0, "", "Exit request sent.\r\n")
	r.giveAway(ours)
	r.wantWarned(r.run(call(r.target(), "echo here")), "share the connection: .*must be a folder of this user with mode 0700; each call makes its own")
	if got := r.run(call("-f", r.target(), "true")); got.status != 0 || strings.Count(got.stderr, "\n") != 1 {
		t.Errorf("-f: %+v, want one line", got)
	}
}

// giveAway makes a folder another user's.
func (r *rig) giveAway(dir string) {
	r.Helper()
	if os.Getuid() == nobody {
		r.Fatal("these tests are not for nobody")
	}
	if err := os.Chown(dir, nobody, -1); err != nil {
		testenv.Missing(r.T, "to give a folder to another user takes root's rights: "+err.Error())
	}
}

// wantWarned checks the result of "echo here" that has one line to say.
func (r *rig) wantWarned(got result, what string) {
	r.Helper()
	if got.status != 0 || got.stdout != "here\n" || !matches(`^ssm-ssh: [^\n]*`+what+`[^\n]*\r\n$`, got.stderr) {
		r.Errorf("got %+v, want a line that says %q", got, what)
	}
}
