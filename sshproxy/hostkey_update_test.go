package sshproxy

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// TestHostKeysAreLearnedAsByStock has OpenSSH's client and ours meet the same node with the same file, and
// compares what they say and what is in the file then.
func TestHostKeysAreLearnedAsByStock(t *testing.T) {
	n := startNode(t, nodeOptions{hostKeyTypes: []string{"ed25519", "ecdsa", "rsa"}})
	known, err := os.ReadFile(n.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(known), "\n")
	first, all := lines[0], string(known)
	bare := strings.TrimPrefix(first, "node ")
	_, lost := newSigner(t, "ecdsa")
	_, unrelated := newSigner(t, "ed25519")
	old, stranger := "node "+string(ssh.MarshalAuthorizedKey(lost)), string(ssh.MarshalAuthorizedKey(unrelated))
	tests := []struct {
		name, known string
		update      string
		strict      string
		hash        bool
		more        []string // files after the first, with the lost key
		config      func(*Config)
		stock       []string
	}{
		{name: "new keys", known: first},
		{name: "no", known: first, update: "no"},
		{name: "nothing to do", known: all},
		{name: "a lost key", known: all + old},
		{name: "new and lost", known: "# begin\n" + first + "\nnode broken\nother " + stranger + old + "# end"},
		{name: "hashed", known: first, hash: true},
		{name: "wildcard", known: first + "n* " + bare},
		{name: "list of names", known: "node,a,b " + bare},
		{name: "name and address", known: "node,192.0.2.1 " + bare},
		{name: "authority", known: first + "@cert-authority node " + bare},
		{name: "revoked other", known: first + "@revoked * " + strings.TrimPrefix(old, "node ")},
		{name: "key under another name", known: first + "other " + bare},
		{name: "lost key under another name", known: all + old + "other " + strings.TrimPrefix(old, "node ")},
		{name: "accepted unasked", strict: "accept-new"},
		{name: "known without the port", known: first, config: func(c *Config) { c.Port = 2222 }, stock: []string{"Port=2222"}},
		{name: "algorithms", known: first, config: func(c *Config) { c.HostKeyAlgorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoRSASHA256} },
			stock: []string{"HostKeyAlgorithms=ssh-ed25519,rsa-sha2-256"}},
		{name: "RSA exchanged", known: lines[2], config: func(c *Config) { c.HostKeyAlgorithms = []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoED25519} },
			stock: []string{"HostKeyAlgorithms=rsa-sha2-256,ssh-ed25519"}},
		{name: "second file", known: first, more: []string{"2"}},
		{name: "ask in batch", known: first, update: "ask"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := []string{filepath.Join(dir, "known_hosts")}
			for _, name := range tt.more {
				files = append(files, filepath.Join(dir, "known_hosts"+name))
			}
			write := func() {
				for i, file := range files {
					text := tt.known
					if i > 0 {
						text = old + "else " + bare
					}
					writeFile(t, file, text, 0o600)
				}
			}
			read := func() (all []string) {
				for _, file := range files {
					text, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, string(text))
				}
				return all
			}
			update, strict := tt.update, tt.strict
			if update == "" {
				update = "yes"
			}
			if strict == "" {
				strict = "yes"
			}
			write()
			var want strings.Builder
			cmd := n.stockCommand(t, append(slices.Clone(tt.stock), "BatchMode=yes", "StrictHostKeyChecking="+strict, "UpdateHostKeys="+update,
				"LogLevel=VERBOSE", "UserKnownHostsFile="+strings.Join(files, " "), fmt.Sprintf("HashKnownHosts=%v", tt.hash))...)
			cmd.Stderr = &want
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v: %s", err, want.String())
			}
			stocks := read()

			write()
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.UserKnownHostsFile, cfg.StrictHostKeyChecking, cfg.UpdateHostKeys = files, strict, update
			cfg.HashKnownHosts, cfg.Verbose, cfg.BatchMode = tt.hash, true, true
			cfg.HostKeyAlgorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256} // as OpenSSH has them
			if tt.config != nil {
				tt.config(&cfg)
			}
			c := n.connect(t, cfg)
			run(t, c, SessionRequest{Command: "true"})
			c.Close()
			got, wanted := updateLines(log.text()), updateLines(want.String())
			if got != wanted {
				t.Errorf("got\n%s\nwant\n%s", got, wanted)
			}
			for i, ours := range read() {
				if tt.hash {
					ours, stocks[i] = namesOf(ours, "node"), namesOf(stocks[i], "node")
				}
				if ours != stocks[i] {
					t.Errorf("file %d: got\n%s\nwant\n%s", i, ours, stocks[i])
				}
			}
		})
	}
}

// updateLines are the lines of a log that tell of known_hosts.
func updateLines(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		for _, word := range []string{"hostkey", "host key", "known", "Adding", "Removed"} {
			if strings.Contains(line, word) {
				kept = append(kept, strings.TrimSpace(line))
				break
			}
		}
	}
	return strings.Join(kept, "\n")
}

// namesOf puts a name in the place of its hashes, whose salt is random.
func namesOf(text, name string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if entry, ok := parseKnownHost([]byte(line)); ok && strings.HasPrefix(entry.names, hashMagic) && entry.matches(name) {
			line = "(hashed) " + name + strings.TrimPrefix(line, entry.names)
		}
		b.WriteString(line)
	}
	return b.String()
}

func TestHostKeysAreLearnedWhenAsked(t *testing.T) {
	n := startNode(t, nodeOptions{hostKeyTypes: []string{"ed25519", "ecdsa"}})
	known, err := os.ReadFile(n.knownHosts)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(known), "\n")
	const question = "Accept updated hostkeys? (yes/no): "
	tests := []struct {
		name    string
		answers []string
		asked   int
		learned bool
	}{
		{"yes", []string{"YES"}, 1, true},
		{"no", []string{"no"}, 1, false},
		{"at last", []string{"", "y", "yes"}, 3, true},
		{"nobody", nil, 3, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "known_hosts")
			writeFile(t, file, first+"\n", 0o600)
			user := &answers{queue: tt.answers}
			var log logBook
			cfg := n.clientConfig(&log)
			cfg.UserKnownHostsFile, cfg.UpdateHostKeys, cfg.Prompt = []string{file}, "ask", user
			c := n.connect(t, cfg)
			s, err := c.OpenSession(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			c.SettleHostKeys(testContext(t)) // from here on the terminal is the session's
			if got := user.prompts(); len(got) != tt.asked || slices.ContainsFunc(got, func(p string) bool { return p != question }) {
				t.Errorf("asked %q", got)
			}
			if !strings.HasPrefix(log.text(), "The server has updated its host keys.\nThese changes were verified by the server's existing trusted key.\nLearned new hostkey: ECDSA SHA256:") {
				t.Errorf("log %q", log.text())
			}
			s.Close()
			c.Close()
			text, err := os.ReadFile(file)
			if err != nil || (string(text) == string(known)) != tt.learned {
				t.Errorf("file:\n%s%v", text, err)
			}
		})
	}
}

// proofOf is what a node answers to be believed that it has a key.
func proofOf(by ssh.Signer, key ssh.PublicKey, session []byte) []byte {
	data := appendString(appendString(appendString(nil, []byte(hostKeysProveReq)), session), key.Marshal())
	sig, err := by.Sign(rand.Reader, data)
	if err != nil {
		panic(err) // of a key made for it
	}
	return appendString(nil, ssh.Marshal(sig))
}

// TestHostKeysOfAStranger has a server tell what it can't prove.
func TestHostKeysOfAStranger(t *testing.T) {
	testenv.Need(t, "sshd")
	host, public := newSigner(t, "ed25519")
	own, err := ssh.NewSignerFromSigner(host)
	if err != nil {
		t.Fatal(err)
	}
	other, stolen := newSigner(t, "ed25519")
	thief, err := ssh.NewSignerFromSigner(other)
	if err != nil {
		t.Fatal(err)
	}
	proof := func(by ssh.Signer, session []byte) []byte { return proofOf(by, stolen, session) }
	tests := []struct {
		name   string
		list   []byte // nil: both keys
		answer func(session []byte) (bool, []byte)
		want   string
		learns bool
	}{
		{name: "proof", answer: func(s []byte) (bool, []byte) { return true, proof(thief, s) }, learns: true},
		{name: "proof by another key", answer: func(s []byte) (bool, []byte) { return true, proof(own, s) },
			want: "client_global_hostkeys_prove_confirm: server gave bad signature for ED25519 key 0: incorrect signature"},
		{name: "proof for another session", answer: func([]byte) (bool, []byte) { return true, proof(thief, []byte("other")) },
			want: "client_global_hostkeys_prove_confirm: server gave bad signature for ED25519 key 0: incorrect signature"},
		{name: "no proof", answer: func([]byte) (bool, []byte) { return true, nil },
			want: "client_global_hostkeys_prove_confirm: parse sig: incomplete message"},
		{name: "refusal", answer: func([]byte) (bool, []byte) { return false, nil },
			want: "Server failed to confirm ownership of private host keys"},
		{name: "one key twice", list: appendString(appendString(nil, public.Marshal()), public.Marshal()),
			want: "client_input_hostkeys: received duplicated ssh-ed25519 host key"},
		{name: "cut list", list: []byte("\x00\x00\x00\x09x"), want: "client_input_hostkeys: parse key: incomplete message"},
		{name: "unknown type", list: appendString(nil, appendString(nil, []byte("ssh-new")))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := bufferedPipe(t, 0)
			told := make(chan struct{})
			go func() {
				defer close(told)
				config := &ssh.ServerConfig{NoClientAuth: true}
				config.AddHostKey(own)
				server, _, reqs, err := ssh.NewServerConn(theirs, config)
				if err != nil {
					t.Error(err)
					return
				}
				list := tt.list
				if list == nil {
					list = appendString(appendString(nil, public.Marshal()), stolen.Marshal())
				}
				for range 2 { // the second list isn't looked at
					_, _, _ = server.SendRequest(hostKeysRequest, false, list)
				}
				for req := range reqs {
					ok, payload := false, []byte(nil)
					if req.Type == hostKeysProveReq && tt.answer != nil {
						ok, payload = tt.answer(server.SessionID())
					}
					_ = req.Reply(ok, payload)
				}
			}()
			file := filepath.Join(t.TempDir(), "known_hosts")
			before := "node " + string(ssh.MarshalAuthorizedKey(public))
			writeFile(t, file, before, 0o600)
			var log logBook
			c, err := NewClient(testContext(t), ours, Config{User: "u", Host: "node", UserKnownHostsFile: []string{file}, UpdateHostKeys: "yes", Logf: log.logf})
			if err != nil {
				t.Fatal(err)
			}
			awaitLog(t, &log, tt.want, file, before, tt.learns)
			c.Close()
			ours.Close()
			theirs.Close()
			<-told
		})
	}
}

// awaitLog waits until what was to be said is said, or learned; else until nothing more can come.
func awaitLog(t *testing.T, log *logBook, want, file, before string, learns bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		grown := len(text) > len(before)
		if log.text() == want && grown == learns {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("log %q, want %q; file\n%s", log.text(), want, text)
		}
	}
}

// TestHostKeysCostNoRoundTrip learns a key beside a session that waits for nothing but its own answers.
func TestHostKeysCostNoRoundTrip(t *testing.T) {
	const rtt = 100 * time.Millisecond
	key, _ := newSigner(t, "ed25519")
	other, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	synctest.Test(t, func(t *testing.T) {
		server := &quietServer{delay: rtt / 2, other: other}
		c := server.start(t, Config{UserKnownHostsFile: []string{file}, UpdateHostKeys: "yes"})
		began := time.Now()
		s, err := c.OpenSession(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context(), SessionRequest{Command: "x"}); err != nil {
			t.Fatal(err)
		}
		if got := float64(time.Since(began)) / float64(rtt); got != 2 {
			t.Errorf("opening and running took %v round trips, want 2", got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	text, err := os.ReadFile(file)
	if err != nil || !strings.HasSuffix(string(text), "node "+string(ssh.MarshalAuthorizedKey(other.PublicKey()))) {
		t.Errorf("not learned:\n%s%v", text, err)
	}
}

// FuzzHostKeyList has any list told: no panic, and no more keys than fit into it.
func FuzzHostKeyList(f *testing.F) {
	_, key := newSigner(f, "ed25519")
	_, rsaKey := newSigner(f, "rsa")
	f.Add(appendString(appendString(nil, key.Marshal()), rsaKey.Marshal()))
	f.Add([]byte("\x00\x00\x00\x09x"))
	f.Fuzz(func(t *testing.T, list []byte) {
		u := &hostKeyUpdate{client: &Client{cfg: Config{}.withDefaults()}}
		u.read(list)
		if len(u.keys) > len(list)/4 {
			t.Errorf("%d keys in %d bytes", len(u.keys), len(list))
		}
	})
}
