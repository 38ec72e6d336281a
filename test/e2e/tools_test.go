package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pkg/sftp"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// well runs a command that must succeed.
func (r *rig) well(cmd *exec.Cmd) result {
	r.Helper()
	got := r.run(cmd)
	if got.status != 0 {
		r.Fatalf("%s: %+v", strings.Join(cmd.Args, " "), got)
	}
	return got
}

// TestGit clones, pushes and fetches. To a program of another name than ssh's git gives no port, unless it has
// answered to -G (connect.c, determine_ssh_variant).
func TestGit(t *testing.T) {
	testenv.Need(t, "git")
	r := newRig(t, lab.Options{})
	r.open()
	r.well(exec.Command(binary, r.target(), "git init -q --bare -b main "+r.path("repository")))
	url := "ssh://" + r.target() + ":" + r.lab.Node(0).SSHPort() + r.path("repository")
	git := func(folder string, args ...string) result {
		r.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=n", "-c", "user.email=e@x", "-C", r.path(folder)}, args...)...)
		cmd.Env = []string{"GIT_SSH_COMMAND=" + binary, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TRACE=" + r.path("trace")}
		return r.well(cmd)
	}
	git("", "clone", "-q", url, "one")
	git("one", "checkout", "-q", "-b", "main")
	git("one", "commit", "-q", "--allow-empty", "-m", "first")
	git("one", "push", "-q", "origin", "main")
	git("", "clone", "-q", url, "two")
	git("one", "commit", "-q", "--allow-empty", "-m", "second")
	git("one", "push", "-q", "origin", "main")
	git("two", "-c", "protocol.version=2", "fetch", "-q")
	if got := git("two", "log", "--format=%s", "origin/main").stdout; got != "second\nfirst\n" {
		t.Errorf("fetched %q", got)
	}
	trace, err := os.ReadFile(r.path("trace"))
	if want := "-G -o SendEnv=GIT_PROTOCOL -p "; err != nil || !strings.Contains(string(trace), want) {
		t.Errorf("git hasn't asked with %q: %v\n%s", want, err, trace)
	}
	r.wantSessions(1)
}

// TestSCPAndSFTPStartUs has OpenSSH's own start this program.
func TestSCPAndSFTPStartUs(t *testing.T) {
	testenv.Need(t, "scp", "sftp")
	r := newRig(t, lab.Options{})
	r.open()
	text := strings.Repeat("some bytes\n", 5000)
	if err := os.WriteFile(r.path("file"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	there := func(name string) string { return r.target() + ":" + r.path(name) }
	r.well(exec.Command("scp", "-q", "-S", binary, r.path("file"), there("up")))
	r.well(exec.Command("scp", "-q", "-O", "-p", "-S", binary, there("up"), r.path("down")))
	r.well(exec.Command("scp", "-q", "-3", "-S", binary, there("up"), there("across")))
	batch := exec.Command("sftp", "-q", "-S", binary, "-b", "-", r.target())
	batch.Stdin = strings.NewReader(fmt.Sprintf("put %s %s\nget %s %s\n", r.path("file"), r.path("put"), r.path("put"), r.path("got")))
	r.well(batch)
	for _, name := range []string{"up", "down", "across", "put", "got"} {
		if got, err := os.ReadFile(r.path(name)); err != nil || string(got) != text {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(text), err)
		}
	}
	r.wantSessions(1)
}

// TestRsyncOfManyFiles carries a tree up and down, each way once interrupted by the key that people press.
func TestRsyncOfManyFiles(t *testing.T) {
	testenv.Need(t, "rsync")
	n := 10_000
	if testing.Short() {
		n = 500
	}
	r := newRig(t, lab.Options{})
	r.open()
	for i := range n {
		file := r.path(fmt.Sprintf("from/%d/%d", i%37, i))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, fmt.Appendf(nil, "this is file %d\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, way := range []struct{ from, to, mark string }{
		{r.path("from") + "/", r.target() + ":" + r.path("there"), r.path("there")},
		{r.target() + ":" + r.path("there") + "/", r.path("back"), r.path("back")},
	} {
		// At this pace the files take seconds: the signal comes in their midst.
		slow := r.prepare(exec.Command("rsync", "-r", "--bwlimit=4", "-e", binary, way.from, way.to))
		if err := slow.Start(); err != nil {
			t.Fatal(err)
		}
		r.await("the first files", func() bool { return exists(way.mark) })
		// To all of the foreground, as from a terminal.
		syscall.Kill(-slow.Process.Pid, syscall.SIGINT)
		slow.Wait()
		// rsync's RERR_SIGNAL, or the larger status of the ssh that has ended with it (cleanup.c).
		if status := slow.ProcessState.ExitCode(); status != 20 && status != 255 {
			t.Errorf("interrupted: status %d", status)
		}
		r.well(exec.Command("rsync", "-r", "-e", binary, way.from, way.to))
	}
	r.want(r.run(exec.Command("diff", "-r", r.path("from"), r.path("back"))), 0, "", "")
	r.wantSessions(1)
}

// TestSSHFS mounts a folder of the node, where the machine lets us. What sshfs starts is replayed in any case.
func TestSSHFS(t *testing.T) {
	testenv.Need(t, "sshfs")
	r := newRig(t, lab.Options{})
	r.open()
	r.well(exec.Command(binary, r.target(), "mkdir -m 777 "+r.path("there")))

	// sshfs.c, start_ssh and sftp_init: one socketpair for both, and "-2", which means nothing any more.
	cmd := r.prepare(exec.Command(binary, "-x", "-a", "-oClearAllForwardings=yes", "-oServerAliveInterval=15", "-2", "-s", "--", r.target(), "sftp"))
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	client, err := sftp.NewClientPipe(out, in)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Mkdir(r.path("there/made")); err != nil {
		t.Error(err)
	}
	client.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("as sshfs starts it: %v", err)
	}

	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Logf("nothing is mounted: %v", err)
		return
	}
	fuse.Close()
	mount := r.path("mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	r.well(exec.Command("sshfs", "-o", "ssh_command="+binary, r.target()+":"+r.path("there"), mount))
	text := bytes.Repeat([]byte("through the file system\n"), 1000)
	if err := os.WriteFile(mount+"/made/file", text, 0o644); err != nil {
		t.Error(err)
	}
	r.well(exec.Command("fusermount3", "-u", mount))
	if got, err := os.ReadFile(r.path("there/made/file")); err != nil || !bytes.Equal(got, text) {
		t.Errorf("on the node: %d bytes of %d, %v", len(got), len(text), err)
	}
	r.wantSessions(1)
}

// TestMosh starts mosh's server through us, on a terminal as mosh asks for; the rest goes by datagrams of its own.
func TestMosh(t *testing.T) {
	testenv.Need(t, "mosh")
	r := newRig(t, lab.Options{})
	cmd := exec.Command("mosh", "--ssh="+binary, "--experimental-remote-ip=remote", r.target(), "--", "sh", "-c", "echo it runs; read line; exit 0")
	cmd.Env = []string{"LANG=C.UTF-8", "LC_ALL=C.UTF-8"}
	term := r.terminalOf(cmd)
	term.expect("it runs")
	term.WriteString("\n") // and the server ends
	term.expect("[mosh is exiting.]")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	r.wantSessions(1)
}

// TestRemoteEditor replays what VS Code's Remote-SSH calls: the version, then one connection without a terminal
// whose shell reads the installer from stdin, and whose dynamic forward leads to the server it has started.
func TestRemoteEditor(t *testing.T) {
	r := newRig(t, lab.Options{})
	if got := r.ssh("-V"); got.status != 0 || !strings.HasPrefix(got.stderr, "OpenSSH_") {
		t.Errorf("-V: %+v", got)
	}
	port := freePort(t)
	cmd := r.prepare(exec.Command(binary, "-v", "-T", "-D", fmt.Sprint(port), "-o", "ConnectTimeout=15", r.target(), "sh"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(stdin, "echo 'mark: start'; uname -s; echo 'listeningOn==%s=='\n", r.lab.Node(0).SSHPort())
	p := &pairing{rig: r}
	r.await("the forward", func() bool {
		c, err := net.Dial("tcp", p.loopback(port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	p.hearsBySOCKS(p.loopback(port), r.lab.Node(0).SSHPort())
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if want := "mark: start\nLinux\nlisteningOn=="; !strings.HasPrefix(out.String(), want) {
		t.Errorf("got %q, want it to begin with %q", out.String(), want)
	}
	if !strings.Contains(errs.String(), "Authenticated to ") {
		t.Errorf("-v has no word of the login:\n%s", errs.String())
	}
	r.wantSessions(1)
}

// TestMitogen replays how mitogen (mitogen/ssh.py, which Debian hasn't) starts ssh: its options, and a first stage that
// announces itself and then takes the second from stdin.
func TestMitogen(t *testing.T) {
	testenv.Need(t, "python3")
	r := newRig(t, lab.Options{})
	var args []string
	for _, o := range []string{"LogLevel ERROR", "Compression yes", "ServerAliveInterval 30", "ServerAliveCountMax 10", "BatchMode yes", "StrictHostKeyChecking yes"} {
		args = append(args, "-o", o)
	}
	const stage = `python3 -c 'import sys; print("MITO000", flush=True); exec(sys.stdin.read())'`
	cmd := exec.Command(binary, append(args, r.target(), stage)...)
	cmd.Stdin = strings.NewReader("print(6 * 7)\nsys.exit(9)\n")
	r.want(r.run(cmd), 9, "MITO000\n42\n", "")

	unknown := append(args, "-o", "UserKnownHostsFile=/dev/null", "-o", "ControlPath=none", r.target(), stage)
	if got := r.ssh(unknown...); got.status != 255 || !strings.HasSuffix(got.stderr, "Host key verification failed.\r\n") {
		t.Errorf("an unknown host: %+v", got)
	}
	nobody := append(args, "-o", "IdentityFile=none", "-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes", "-F", "none",
		"-o", "UserKnownHostsFile="+r.labEnv("SSM_SSH_LAB_KNOWN_HOSTS"), "-p", r.lab.Node(0).SSHPort(), r.target(), stage)
	if got := r.ssh(nobody...); got.status != 255 || !matches(`^([^@]+@[^:]+: )?Permission denied`, got.stderr) {
		t.Errorf("a stranger: %+v", got)
	}
}
