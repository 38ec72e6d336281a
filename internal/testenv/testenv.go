// Package testenv is what tests ask of the machine they run on: other people's programs, counted
// descriptors, no goroutine left behind.
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
//	func TestX(t *testing.T) {
//		sshd := testenv.Tool(t, "sshd")
//
// A program that is missing skips a test where a person runs it, with the package to install; where
// CI=true is set it fails, so that a green run has run everything. For tests only.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// tool is a program that tests use.
type tool struct {
	debian string // package that has it
	path   string // the only place that counts; "" is PATH and the folders of administrators
}

// tools are the programs that tests may ask for.
var tools = map[string]tool{
	"ansible":          {debian: "ansible-core"},
	"ansible-playbook": {debian: "ansible-core"},
	// Others of that name are wrappers of other versions; the recorded figures are this one's.
	"aws":         {debian: "awscli", path: "/usr/bin/aws"},
	"bash":        {debian: "bash"},
	"expect":      {debian: "expect"},
	"git":         {debian: "git"},
	"mandoc":      {debian: "mandoc"},
	"mosh":        {debian: "mosh"},
	"python3":     {debian: "python3"},
	"rsync":       {debian: "rsync"},
	"scp":         {debian: "openssh-client"},
	"sftp":        {debian: "openssh-client"},
	"sftp-server": {debian: "openssh-sftp-server", path: "/usr/lib/openssh/sftp-server"},
	"ssh":         {debian: "openssh-client"},
	"ssh-add":     {debian: "openssh-client"},
	"ssh-agent":   {debian: "openssh-client"},
	"ssh-keygen":  {debian: "openssh-client"},
	"sshd":        {debian: "openssh-server"},
	"sshfs":       {debian: "sshfs"},
	"sshpass":     {debian: "sshpass"},
	"sudo":        {debian: "sudo"},
	"tmux":        {debian: "tmux"},
	"unshare":     {debian: "util-linux"},
	"vi":          {debian: "vim-tiny"},
}

// adminFolders hold programs that aren't in the PATH of everybody.
var adminFolders = []string{"/usr/sbin", "/usr/local/sbin", "/sbin"}

// reporter is the part of testing.TB that decides how a test ends.
type reporter interface {
	Helper()
	Skipf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Find returns the path of a program, without a test to end.
func Find(name string) (string, error) {
	known := tools[name]
	if known.path != "" {
		return known.path, executable(known.path)
	}
	path, err := exec.LookPath(name)
	for i := 0; err != nil && i < len(adminFolders); i++ {
		path = filepath.Join(adminFolders[i], name)
		err = executable(path)
	}
	if err != nil {
		return "", fmt.Errorf("%s isn't installed", name)
	}
	return path, nil
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err == nil && (info.IsDir() || info.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s is no program", path)
	}
	return err
}

// Tool returns the path of a program. The test ends when it is missing.
func Tool(t testing.TB, name string) string {
	t.Helper()
	return find(t, name)
}

func find(t reporter, name string) string {
	t.Helper()
	path, err := Find(name)
	switch known, ok := tools[name]; {
	case !ok:
		t.Fatalf("testenv knows no program %q: name its package in the table", name)
	case err != nil:
		missing(t, fmt.Sprintf("%s is missing: apt-get install %s", name, known.debian))
	}
	return path
}

// Need ends the test when one of the programs is missing.
func Need(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		find(t, name)
	}
}

// Missing ends a test that the machine can't run: with a skip where a person runs it, as a failure
// in CI.
func Missing(t testing.TB, reason string) {
	t.Helper()
	missing(t, reason)
}

func missing(t reporter, reason string) {
	t.Helper()
	if CI() {
		t.Fatalf("CI=true and %s", reason)
		return
	}
	t.Skipf("%s", reason)
}

// CI says whether a skip is a failure.
func CI() bool {
	yes, err := strconv.ParseBool(os.Getenv("CI"))
	return err == nil && yes
}

// Main runs a package's tests and fails when goroutines are left.
func Main(m *testing.M, options ...goleak.Option) { goleak.VerifyTestMain(m, options...) }

// Descriptors returns how many descriptors this process has open.
func Descriptors(t testing.TB) int {
	t.Helper()
	folder := "/dev/fd"
	if runtime.GOOS == "linux" {
		folder = "/proc/self/fd"
	}
	n, err := entries(folder)
	if err != nil {
		t.Fatal(err)
	}
	return n - 1 // the folder's own
}

// DescriptorsOf returns how many descriptors another process has open. The test ends where the
// system doesn't show that.
func DescriptorsOf(t testing.TB, pid int) int {
	t.Helper()
	n, err := entries(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Skipf("descriptors of another process can't be counted here: %v", err)
	}
	return n
}

func entries(folder string) (int, error) {
	list, err := os.ReadDir(folder)
	return len(list), err
}
