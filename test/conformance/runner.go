package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

// suite is where Debian's openssh-tests has the scripts.
const suite = "/usr/lib/openssh/regress"

// limit ends a script that hangs. The longest of the suite, rekey, takes some minutes.
const limit = 20 * time.Minute

type result string

const (
	pass result = "pass"
	fail result = "fail"
	skip result = "skip" // the script itself found that it can't run here
)

// verdict is how a script came out.
type verdict struct {
	script
	result result
	why    string // its first complaint, unless it passed
	took   time.Duration
}

func (v verdict) String() string {
	return strings.TrimRight(fmt.Sprintf("%s  %-20s %6.1fs  %s", v.result, v.name, v.took.Seconds(), v.why), " ")
}

// surprise says in what a verdict differs from the table, "" where it doesn't.
func (v verdict) surprise() string {
	switch {
	case v.result != pass && v.fails == "":
		return fmt.Sprintf("%s: %s: %s", v.name, v.result, v.why)
	case v.result == pass && v.fails != "":
		return fmt.Sprintf("%s passes, and the table has a reason why it can't: %s", v.name, v.fails)
	}
	return ""
}

// runner runs scripts. Its fields are set before run and not changed.
type runner struct {
	ssh  string   // absolute path of what is under test
	jobs int      // how many scripts run at a time
	keep string   // a folder for the logs of those that don't pass; "" is none
	env  []string // more of the environment that scripts run in

	isolated bool // every worker has a network of its own
}

// defaultJobs is two for each processor: scripts sleep more than they compute.
func defaultJobs() int { return 2 * runtime.NumCPU() }

// run runs the scripts, the first of them first, and reports each verdict as it comes; the reports
// don't overlap. It returns when everything that was started has ended, with an error where scripts
// couldn't be run at all, or ctx has ended before they had.
func (r runner) run(ctx context.Context, scripts []script, report func(verdict)) error {
	if err := needs(); err != nil {
		return err
	}
	// The path of a unix socket has 108 bytes, and scripts nest theirs below it.
	dir, err := os.MkdirTemp("/tmp", "conf")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := r.prepare(ctx, dir); err != nil {
		return err
	}
	if r.isolated = canIsolate(); !r.isolated {
		r.jobs = 1
	}
	queue := make(chan script)
	var workers sync.WaitGroup
	var reports sync.Mutex
	for range max(r.jobs, 1) {
		workers.Go(func() {
			for s := range queue {
				v := r.one(ctx, dir, s)
				if ctx.Err() != nil {
					continue // cut short, which is no verdict
				}
				reports.Lock()
				report(v)
				reports.Unlock()
			}
		})
	}
	for _, s := range scripts {
		queue <- s
	}
	close(queue)
	workers.Wait()
	return context.Cause(ctx)
}

// needs says what the machine lacks. The suite's package depends on those of sshd and all the rest.
func needs() error {
	if _, err := os.Stat(filepath.Join(suite, "test-exec.sh")); err != nil {
		return errors.New("the suite is missing: apt-get install openssh-tests")
	}
	if os.Getuid() != 0 {
		return nil
	}
	return os.MkdirAll("/run/sshd", 0o755) // which root's sshd wants and only a started service makes
}

// prepare makes what the scripts share: a copy of the suite with keys for each to copy again, and a
// folder for PATH where ssh is the program under test, as some scripts call that name.
func (r runner) prepare(ctx context.Context, dir string) error {
	// The account that sshd's less privileged part, or sftp-chroot's user, runs in must come through.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(r.ssh, filepath.Join(dir, "bin", "ssh")); err != nil {
		return err
	}
	template := filepath.Join(dir, "template")
	if err := command(ctx, "cp", "-a", suite, template); err != nil {
		return err
	}
	for _, unused := range []string{"unittests", "misc/fuzz-harness"} {
		if err := os.RemoveAll(filepath.Join(template, unused)); err != nil {
			return err
		}
	}
	// test-exec.sh makes keys of all types that the program names, unless they are there already.
	for _, kind := range []string{"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-dss", "ssh-rsa"} {
		if err := command(ctx, "ssh-keygen", "-q", "-N", "", "-t", kind, "-f", filepath.Join(template, kind)); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program that should have nothing to say.
func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// one runs one script in a copy of the template.
func (r runner) one(ctx context.Context, dir string, s script) verdict {
	v := verdict{script: s, result: fail}
	// Words of the name must not be words that a script greps for: hostkey-agent drops every line of
	// its configuration with "hostkey" in it, paths included.
	obj, err := os.MkdirTemp(dir, "o")
	if err == nil {
		defer os.RemoveAll(obj)
		err = command(ctx, "cp", "-a", filepath.Join(dir, "template")+"/.", obj)
	}
	if err != nil {
		v.why = err.Error()
		return v
	}
	start := time.Now()
	output, err := r.work(ctx, dir, obj, s)
	v.took = time.Since(start)
	v.result, v.why = judge(output, complaints(obj), err)
	if r.keep != "" && v.result != pass {
		if err := keepLogs(filepath.Join(r.keep, s.name), obj, output); err != nil {
			v.why += "; its logs weren't kept: " + err.Error()
		}
	}
	return v
}

// work has a worker run the script. It returns what the script printed, and an error unless its
// status was 0.
func (r runner) work(ctx context.Context, dir, obj string, s script) (output string, err error) {
	account, err := user.Current()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no end within %v", limit))
	defer cancel()
	var text strings.Builder
	cmd, lifeline, err := worker(r.isolated, "sh", "test-exec.sh", obj, filepath.Join(obj, s.name+".sh"))
	if err != nil {
		return "", err
	}
	cmd.Stdout, cmd.Stderr = &text, &text
	cmd.Dir = obj
	cmd.Env = append(cmd.Env,
		"PATH="+filepath.Join(dir, "bin")+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME="+account.HomeDir, "USER="+account.Username, "LOGNAME="+account.Username, "SHELL=/bin/sh",
		"TERM=dumb", "LC_ALL=C", "TMPDIR="+dir, "SUDO=",
		"OBJ="+obj, "BUILDDIR="+obj, "TEST_SHELL=sh", "TEST_SSH_SSH="+r.ssh,
		"TEST_SSH_SFTPSERVER=/usr/lib/openssh/sftp-server", "TEST_SSH_IPV6=yes", "TEST_SSH_ECC=yes",
		"TEST_SSH_UNSAFE_PERMISSIONS=1", // or it complains of what /tmp is
	)
	cmd.Env = append(cmd.Env, r.env...)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { lifeline.Close() })
	err = cmd.Wait()
	if !stop() {
		err = context.Cause(ctx)
	}
	return text.String(), err
}

// complaint is how test-exec.sh writes one to its log.
var complaint = regexp.MustCompile(`(?m)^(?:FAIL|FATAL): (.*)`)

// complaints returns what the script has noted of what failed.
func complaints(obj string) string {
	text, err := os.ReadFile(filepath.Join(obj, "failed-regress.log"))
	if err != nil {
		return ""
	}
	return string(text)
}

// judge makes a verdict of what a script printed, of its log of failures and of how it ended.
func judge(output, log string, err error) (r result, why string) {
	last := func(text string) string {
		lines := strings.Split(strings.TrimSpace(text), "\n")
		return printable(lines[len(lines)-1])
	}
	if err != nil {
		if found := complaint.FindStringSubmatch(log); found != nil {
			return fail, printable(found[1])
		}
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return fail, last(output)
		}
		return fail, fmt.Sprintf("%v: %s", err, last(output))
	}
	for line := range strings.Lines(output) {
		if strings.HasPrefix(strings.ToLower(line), "skipped") {
			return skip, printable(strings.TrimSpace(line))
		}
	}
	return pass, ""
}

// printable makes a line of the script's fit for one of ours.
func printable(line string) string {
	line = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, line)
	const longest = 120
	if len(line) > longest {
		line = strings.ToValidUTF8(line[:longest], "") + "…"
	}
	return line
}

// keepLogs copies what a script printed and logged to a folder of its name.
func keepLogs(folder, obj, output string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	err := os.WriteFile(filepath.Join(folder, "output"), []byte(output), 0o644)
	logs, _ := filepath.Glob(filepath.Join(obj, "*.log"))
	for _, log := range logs {
		err = errors.Join(err, copyFile(filepath.Join(folder, filepath.Base(log)), log))
	}
	return err
}

func copyFile(to, from string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}
