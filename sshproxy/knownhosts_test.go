package sshproxy

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

func TestKnownHostNames(t *testing.T) {
	tests := []struct {
		name  string
		names string
		host  string
		want  bool
	}{
		{"plain", "node", "node", true},
		{"other", "node", "nodes", false},
		{"case", "Node", "node", true},
		{"list", "a,node,b", "node", true},
		{"port", "[node]:2222", "[node]:2222", true},
		{"port is not plain", "[node]:2222", "node", false},
		{"star", "*.example.org", "a.b.example.org", true},
		{"star alone", "*", "anything", true},
		{"star in the middle", "n*e", "node", true},
		{"question mark", "nod?", "node", true},
		{"question mark is one", "nod??", "node", false},
		{"negated", "*.org,!bad.org", "bad.org", false},
		{"negated first", "!bad.org,*.org", "bad.org", false},
		{"only negated", "!bad.org", "good.org", false},
		{"empty element", ",node", "node", true},
		// From: ssh-keygen -H on a line for "node".
		{"hash of another", "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "node", false},
		{"broken hash", "|1|x", "node", false},
		{"unknown hash", "|2|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "node", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := (&knownHost{names: tt.names}).matches(tt.host); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestParseKnownHost(t *testing.T) {
	_, key := newSigner(t, "ed25519")
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	tests := []struct {
		name   string
		line   string
		ok     bool
		marker string
	}{
		{"plain", "node " + line, true, ""},
		{"comment after", "node " + line + " someone@somewhere", true, ""},
		{"tabs and spaces", "  node\t" + strings.ReplaceAll(line, " ", "\t") + "\r", true, ""},
		{"authority", "@cert-authority * " + line, true, markerCA},
		{"revoked", "@revoked * " + line, true, markerRevoked},
		{"unknown marker", "@other * " + line, false, ""},
		{"blank", "", false, ""},
		{"comment", "# node " + line, false, ""},
		{"no key", "node ssh-ed25519", false, ""},
		{"type differs", "node ssh-rsa " + strings.Fields(line)[1], false, ""},
		{"broken base64", "node ssh-ed25519 AAAA*", false, ""},
		{"bits and modulus of version 1", "node 1024 35 1234567", false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := parseKnownHost([]byte(tt.line))
			if ok != tt.ok || got.marker != tt.marker || ok && !sameKey(got.key, key) {
				t.Errorf("got %+v %v", got, ok)
			}
		})
	}
}

func TestAppendKnownHost(t *testing.T) {
	_, key := newSigner(t, "ed25519")
	lineOf := string(ssh.MarshalAuthorizedKey(key))
	t.Run("makes file and directory", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "new", "known_hosts")
		if err := appendKnownHost(file, "[node]:42", key, false); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil || string(data) != "[node]:42 "+lineOf {
			t.Errorf("got %q %v", data, err)
		}
		for path, mode := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v %v", path, info.Mode(), err)
			}
		}
	})
	t.Run("completes a last line", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "known_hosts")
		writeFile(t, file, "# by hand", 0o600)
		if err := appendKnownHost(file, "node", key, false); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(file); string(data) != "# by hand\nnode "+lineOf {
			t.Errorf("got %q", data)
		}
	})
	t.Run("hashed", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "known_hosts")
		if err := appendKnownHost(file, "[node]:42", key, true); err != nil {
			t.Fatal(err)
		}
		found := 0
		scanKnownHosts([]string{file}, func(k *knownHost) bool {
			if k.matches("[node]:42") && !k.matches("node") && !strings.Contains(k.names, "node") {
				found++
			}
			return true
		})
		if found != 1 {
			t.Errorf("found %d lines", found)
		}
	})
	t.Run("null device", func(t *testing.T) {
		if err := appendKnownHost(os.DevNull, "node", key, false); err != nil {
			t.Error(err)
		}
	})
}

// TestWritersLoseNoLine has one of ours add lines, another write the file anew all the time, and stock ssh add
// lines of its own.
func TestWritersLoseNoLine(t *testing.T) {
	n := startNode(t, nodeOptions{})
	_, before := newSigner(t, "ed25519")
	_, after := newSigner(t, "ed25519")
	file := filepath.Join(t.TempDir(), "known_hosts")
	writeFile(t, file, "# by hand\n", 0o600)
	const each = 12
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range each * 5 {
			if err := appendKnownHost(file, fmt.Sprintf("added%d", i), before, false); err != nil {
				t.Error(err)
			}
		}
	})
	writers.Go(func() {
		c := &Client{cfg: Config{}.withDefaults()}
		for i := range each {
			name := fmt.Sprintf("changed%d", i)
			if err := appendKnownHost(file, name, before, false); err != nil {
				t.Error(err)
			}
			if err := c.replaceKnownHosts(file, name, []ssh.PublicKey{after}); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range each {
		writers.Go(func() {
			cmd := n.stockCommand(t, fmt.Sprintf("HostKeyAlias=stock%d", i), "UserKnownHostsFile="+file, "StrictHostKeyChecking=accept-new", "PreferredAuthentications=none")
			_ = cmd.Run() // it gets no further than the host key
		})
	}
	writers.Wait()
	seen := map[string]int{}
	scanKnownHosts([]string{file}, func(k *knownHost) bool {
		if strings.HasPrefix(k.names, "changed") && !sameKey(k.key, after) {
			t.Errorf("%s has its old key", k.names)
		}
		seen[k.names]++
		return true
	})
	for prefix, n := range map[string]int{"added": each * 5, "changed": each, "stock": each} {
		for i := range n {
			if name := fmt.Sprintf("%s%d", prefix, i); seen[name] != 1 {
				t.Errorf("%s is there %d times", name, seen[name])
			}
		}
	}
}

func TestHashedNamesAreSSHKeygens(t *testing.T) {
	testenv.Need(t, "ssh-keygen")
	_, key := newSigner(t, "ed25519")
	file := filepath.Join(t.TempDir(), "known_hosts")
	writeFile(t, file, "[node]:42 "+string(ssh.MarshalAuthorizedKey(key)), 0o600)
	if out, err := exec.Command("ssh-keygen", "-H", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := appendKnownHost(file, "[other]:42", key, true); err != nil {
		t.Fatal(err)
	}
	scanKnownHosts([]string{file}, func(k *knownHost) bool {
		if k.line == 1 && !k.matches("[node]:42") {
			t.Errorf("%s does not match", k.names)
		}
		return true
	})
	if out, err := exec.Command("ssh-keygen", "-F", "[other]:42", "-f", file).CombinedOutput(); err != nil {
		t.Errorf("ssh-keygen does not find our line: %v: %s", err, out)
	}
}

func FuzzParseKnownHost(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	for _, line := range []string{
		"node " + key, "@cert-authority *.example.org,!bad " + key, "@revoked * " + key,
		"|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= " + key, "# x", "a\x00b " + key, "@ * " + key,
	} {
		f.Add([]byte(line), "node")
	}
	f.Fuzz(func(t *testing.T, line []byte, host string) {
		entry, ok := parseKnownHost(line)
		if !ok {
			return
		}
		entry.matches(host)
		// What is understood can be written and read again.
		again, ok := parseKnownHost([]byte(strings.TrimSpace(entry.marker+" "+entry.names) + " " +
			string(ssh.MarshalAuthorizedKey(entry.key))))
		if !ok || again.names != entry.names || again.marker != entry.marker || !sameKey(again.key, entry.key) {
			t.Errorf("%q reads back as %+v", line, again)
		}
	})
}

func FuzzMatchPattern(f *testing.F) {
	f.Add("*a*b?c*", "xaybzc")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 1000 || len(s) > 1000 {
			return
		}
		matched := matchPattern(pattern, s)
		if !strings.ContainsAny(pattern, "*?") && matched != (pattern == s) {
			t.Errorf("%q against %q: %v", pattern, s, matched)
		}
		if !matchPattern("*"+pattern+"*", s) && matched {
			t.Errorf("%q against %q matches only without stars around", pattern, s)
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	for _, passphrase := range []string{"", "secret"} {
		file, public := writeKey(f, f.TempDir(), "id", "ed25519", passphrase)
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(ssh.MarshalAuthorizedKey(public))
	}
	f.Add([]byte("# comment\n-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keep := bytes.Clone(data)
		public := parsePublicFile(data)
		private := parsePrivateHeader(data)
		if !bytes.Equal(keep, data) {
			t.Error("the input was changed")
		}
		for _, key := range []ssh.PublicKey{public, private} {
			if key == nil {
				continue
			}
			if again, err := ssh.ParsePublicKey(key.Marshal()); err != nil || !sameKey(again, key) {
				t.Errorf("%s does not read back: %v", key.Type(), err)
			}
		}
	})
}
