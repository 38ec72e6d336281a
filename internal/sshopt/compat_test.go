package sshopt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// stockSSH finds the OpenSSH that we are compared with. It must be the release whose texts and
// order this package has.
func stockSSH(t testing.TB) string {
	t.Helper()
	missing := t.Skipf
	if os.Getenv("CI") == "true" {
		missing = t.Fatalf
	}
	path, err := exec.LookPath("ssh")
	if err != nil {
		missing("no ssh to compare with: %v", err)
	}
	version, err := exec.Command(path, "-V").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(version), "OpenSSH_9.2") {
		t.Skipf("the ssh here is %.40q, not the 9.2 whose texts we have", version)
	}
	return path
}

// realEnvironment is the one in which a stock ssh started by the test finds itself.
func realEnvironment(t testing.TB) Environment {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return Environment{Args0: "ssh", Home: me.HomeDir, LocalUser: me.Username, UID: os.Getuid(), Hostname: hostname}
}

// result is what a program shows of itself.
type result struct {
	stdout, stderr string
	code           int
}

func runStock(t testing.TB, path string, args []string) result {
	t.Helper()
	cmd := exec.Command(path, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	// The version that -v shows is the caller's to print; Debian's name for QUIET isn't OpenSSH's.
	shown := errOut.String()
	if first, rest, _ := strings.Cut(shown, "\n"); strings.HasPrefix(first, "OpenSSH_9.2") {
		shown = rest
	}
	dump := strings.Replace(out.String(), "loglevel SILENT\n", "loglevel QUIET\n", 1)
	return result{dump, shown, cmd.ProcessState.ExitCode()}
}

// runOurs does what the program does around Parse.
func runOurs(args []string, env Environment) result {
	o, err := Parse(args, env)
	var r result
	for _, n := range o.Notices {
		if n.Raw || !o.Syslog {
			r.stderr += render(n)
		}
	}
	var failure *Error
	if errors.As(err, &failure) {
		r.code = failure.Code
		if failure.Raw || o.LogLevel > LogQuiet && !o.Syslog {
			for text := range strings.SplitSeq(failure.Text, "\n") {
				r.stderr += render(Notice{Text: text, Raw: failure.Raw})
			}
		}
		return r
	}
	if o.Action == ActionDump {
		r.stdout = o.Dump()
	}
	return r
}

func render(n Notice) string {
	switch {
	case n.Raw:
		return n.Text + "\n"
	case n.Level > 0:
		return fmt.Sprintf("debug%d: %s\r\n", n.Level, n.Text)
	}
	return n.Text + "\r\n"
}

// notCompared are the keywords of -G in which we mean to differ.
var notCompared = map[string]string{
	"gssapikeyexchange":           "Debian's patch; accepted and not shown",
	"gssapitrustdns":              "Debian's patch; accepted and not shown",
	"gssapirenewalforcesrekey":    "Debian's patch; accepted and not shown",
	"gssapikexalgorithms":         "Debian's patch; accepted and not shown",
	"ciphers":                     "ours shows what it can do; see TestCompatAlgorithms",
	"macs":                        "ours shows what it can do; see TestCompatAlgorithms",
	"kexalgorithms":               "ours shows what it can do; see TestCompatAlgorithms",
	"hostkeyalgorithms":           "ours shows what it can do; see TestCompatAlgorithms",
	"hostbasedacceptedalgorithms": "ours shows what it can do; see TestCompatAlgorithms",
	"pubkeyacceptedalgorithms":    "ours shows what it can do; see TestCompatAlgorithms",
	"casignaturealgorithms":       "ours shows what it can do; see TestCompatAlgorithms",
}

func comparable(dump string) []string {
	var lines []string
	for line := range strings.Lines(dump) {
		name, _, _ := strings.Cut(line, " ")
		if notCompared[name] == "" {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}

// diff names the first line in which two dumps differ.
func diff(stock, ours string) string {
	stock = strings.ReplaceAll(stock, " [socks]:0\n", "\n") // which it can't read back
	a, b := comparable(stock), comparable(ours)
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return fmt.Sprintf("stock %q, ours %q", x, y)
		}
	}
	return ""
}

func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCompatDump(t *testing.T) {
	ssh := stockSSH(t)
	env := realEnvironment(t)
	t.Setenv("SSMOPT_VALUE", "/value")
	for _, args := range dumpCorpus {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			args := append([]string{"-G"}, args...)
			stock, ours := runStock(t, ssh, args), runOurs(args, env)
			if d := diff(stock.stdout, ours.stdout); d != "" {
				t.Error(d)
			}
			if stock.stderr != ours.stderr || stock.code != ours.code {
				t.Errorf("stock %d %q, ours %d %q", stock.code, stock.stderr, ours.code, ours.stderr)
			}
		})
	}
}

func TestCompatConfig(t *testing.T) {
	ssh := stockSSH(t)
	env := realEnvironment(t)
	t.Setenv("SSMOPT_VALUE", "/value")
	for _, tt := range configCorpus {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			t.Chdir(dir)
			write(t, dir, "config", strings.ReplaceAll(tt.config, "DIR", dir))
			for name, text := range tt.files {
				write(t, dir, name, strings.ReplaceAll(text, "DIR", dir))
			}
			for _, host := range append([]string{"h"}, tt.hosts...) {
				args := append(append([]string{"-F", "config", "-G"}, tt.args...), host)
				stock, ours := runStock(t, ssh, args), runOurs(args, env)
				if d := diff(stock.stdout, ours.stdout); d != "" {
					t.Errorf("%s: %s", host, d)
				}
				if stock.stderr != ours.stderr || stock.code != ours.code {
					t.Errorf("%s: stock %d %q, ours %d %q", host, stock.code, stock.stderr, ours.code, ours.stderr)
				}
			}
		})
	}
}

func TestCompatErrors(t *testing.T) {
	ssh := stockSSH(t)
	env := realEnvironment(t)
	dir := t.TempDir()
	write(t, dir, "bad", "Port x\n\nFoo 1\nHost a\n  Ciphers zz\n")
	t.Chdir(dir)
	for _, args := range errorCorpus {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			stock, ours := runStock(t, ssh, args), runOurs(args, env)
			if stock != ours {
				t.Errorf("\nstock %d %q\n ours %d %q", stock.code, stock.stderr, ours.code, ours.stderr)
			}
			if stock.code == 0 {
				t.Error("stock ssh took it: it belongs in another corpus")
			}
		})
	}
}

// TestCompatRoundTrip feeds our -G back to us and to stock ssh.
func TestCompatRoundTrip(t *testing.T) {
	ssh := stockSSH(t)
	env := realEnvironment(t)
	dir := t.TempDir()
	t.Chdir(dir)
	for i, args := range dumpCorpus {
		args := append([]string{"-G"}, args...)
		if !stable(t, ssh, dir, args) {
			continue
		}
		first, err := Parse(args, env)
		if err != nil {
			continue
		}
		dump := first.Dump()
		name := fmt.Sprintf("dump%d", i)
		again := []string{"-F", write(t, dir, name, dump), "-G", first.OriginalHost}
		second, err := Parse(again, env)
		if err != nil {
			t.Errorf("%q: read back: %v", args, err)
			continue
		}
		if d := diff(dump, second.Dump()); d != "" {
			t.Errorf("%q: read back: %s", args, strings.Replace(d, "stock", "first", 1))
		}
		stock := runStock(t, ssh, again)
		if stock.code != 0 && !strings.Contains(stock.stderr, "mlkem") && !strings.Contains(dump, "\nssm") {
			t.Errorf("%q: stock ssh doesn't take our dump: %q", args, stock.stderr)
		}
	}
}

// stable reports whether stock ssh can read its own dump back. It can't where a value needs quotes
// or a percent sign, or where the command isn't part of the dump.
func stable(t *testing.T, ssh, dir string, args []string) bool {
	first := runStock(t, ssh, args)
	host := values(first.stdout)["host"]
	second := runStock(t, ssh, []string{"-F", write(t, dir, "stock", first.stdout), "-G", host})
	return second.code == 0 && second.stdout == first.stdout
}

func TestCompatAlgorithms(t *testing.T) {
	ssh := stockSSH(t)
	env := realEnvironment(t)
	families := map[string]*family{"ciphers": &algCiphers, "macs": &algMACs, "kexalgorithms": &algKex,
		"hostkeyalgorithms": &algKeys, "pubkeyacceptedalgorithms": &algKeys,
		"casignaturealgorithms": &algCASignatures, "hostbasedacceptedalgorithms": &algKeys}
	for _, args := range [][]string{
		{}, {"-oCiphers=aes256-ctr,aes128-cbc,aes128-ctr"}, {"-oCiphers=+aes128-cbc,aes256-cbc"},
		{"-oCiphers=-*-ctr"}, {"-oCiphers=^aes256-gcm@openssh.com,3des-cbc"}, {"-c", "aes256-ctr"},
		{"-oMACs=hmac-sha1,umac-64@openssh.com"}, {"-m", "hmac-sha2-512"}, {"-oMACs=-*etm*"},
		{"-oKexAlgorithms=+diffie-hellman-group1-sha1"}, {"-oKexAlgorithms=^ecdh-sha2-nistp521"},
		{"-oHostKeyAlgorithms=+ssh-rsa"}, {"-oHostKeyAlgorithms=ssh-ed*"}, {"-oHostKeyAlgorithms=-*cert*"},
		{"-oPubkeyAcceptedKeyTypes=+ssh-rsa,ssh-dss"}, {"-oPubkeyAcceptedAlgorithms=rsa*,ecdsa-sha2-nistp*"},
		{"-oCASignatureAlgorithms=^ssh-rsa"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			args := append(append([]string{"-G"}, args...), "h")
			stock, ours := values(runStock(t, ssh, args).stdout), values(runOurs(args, env).stdout)
			for name, f := range families {
				if want := filter(stock[name], f); want == "" || strip(ours[name]) != want {
					t.Errorf("%s: stock's that we can do %q, ours %q", name, want, strip(ours[name]))
				}
			}
		})
	}
}

// What -Q lists, stock ssh lists in the same order; names that are newer are ours alone.
func TestCompatQuery(t *testing.T) {
	ssh := stockSSH(t)
	env := realEnvironment(t)
	newer := map[string]bool{"mlkem768x25519-sha256": true, "key-ca-sign": true}
	for word := range strings.SplitSeq(queries+"\nciphers\nMACs\nKexAlgorithms\nPubkeyAcceptedAlgorithms\nPubkeyAcceptedKeyTypes\n"+
		"HostKeyAlgorithms\nHostbasedKeyTypes\nHostbasedAcceptedKeyTypes\nHOSTBASEDACCEPTEDALGORITHMS", "\n") {
		stock := runStock(t, ssh, []string{"-Q", word})
		if newer[word] {
			if stock.code == 0 {
				t.Errorf("-Q %s isn't new any more", word)
			}
			continue
		}
		o, err := Parse([]string{"-Q", word}, env)
		if err != nil {
			t.Fatal(err)
		}
		rest := stock.stdout
		for line := range strings.Lines(o.QueryText()) {
			found := false
			if newer[strings.TrimSpace(line)] {
				continue
			}
			if _, rest, found = strings.Cut("\n"+rest, "\n"+line); !found {
				t.Errorf("-Q %s: %s is not stock's, or out of place", word, strings.TrimSpace(line))
			}
		}
		if stock.stderr != "" || stock.code != 0 {
			t.Errorf("-Q %s: stock %d %q", word, stock.code, stock.stderr)
		}
	}
}

// strip takes the key exchange away that 9.2 doesn't have.
func strip(list string) string { return strings.ReplaceAll(list, "mlkem768x25519-sha256,", "") }

func filter(list string, f *family) string {
	var kept []string
	for name := range strings.SplitSeq(list, ",") {
		if contains(f.defaults, name) || contains(f.extra, name) {
			kept = append(kept, name)
		}
	}
	return strings.Join(kept, ",")
}

func values(dump string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(dump) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[name] = value
	}
	return m
}
