package krl

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/internal/testenv"
)

// bench is a folder with two authorities (ca, other), and a key with certificates of theirs.
type bench struct {
	dir  string
	keys []string // public files: the key, then its certificates
}

func newBench(t testing.TB) *bench {
	t.Helper()
	testenv.Need(t, "ssh-keygen")
	b := &bench{dir: t.TempDir()}
	for _, name := range []string{"ca", "other", "key", "stranger"} {
		b.keygen(t, "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", name)
	}
	b.keys = []string{"key.pub", "stranger.pub"}
	for _, ca := range []string{"ca", "other"} {
		for _, serial := range []int{0, 1, 5, 6, 70, 300} {
			name := fmt.Sprintf("%s%d", ca, serial)
			public, err := os.ReadFile(filepath.Join(b.dir, "key.pub"))
			if err != nil {
				t.Fatal(err)
			}
			b.write(t, name+".pub", public)
			b.keygen(t, "-q", "-s", ca, "-h", "-I", fmt.Sprintf("id%d", serial), "-z", fmt.Sprint(serial), "-n", "host", name+".pub")
			b.keys = append(b.keys, name+"-cert.pub")
		}
	}
	return b
}

func (b *bench) keygen(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %q: %v: %s", args, err, out)
	}
}

func (b *bench) write(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// list has ssh-keygen make a list.
func (b *bench) list(t testing.TB, spec string, args ...string) []byte {
	t.Helper()
	b.write(t, "spec", []byte(spec))
	b.keygen(t, append(append([]string{"-q", "-k", "-f", "krl"}, args...), "spec")...)
	data, err := os.ReadFile(filepath.Join(b.dir, "krl"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (b *bench) key(t testing.TB, name string) ssh.PublicKey {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var specs = []struct {
	name, spec string
	authority  string // of the certificates
}{
	{name: "nothing"},
	{name: "one number", spec: "serial: 5", authority: "ca"},
	{name: "numbers apart", spec: "serial: 1\nserial: 5\nserial: 300", authority: "ca"},
	{name: "numbers close by", spec: "serial: 1\nserial: 3\nserial: 5\nserial: 8\nserial: 70\nserial: 72", authority: "other"},
	{name: "a range", spec: "serial: 2-69", authority: "ca"},
	{name: "ranges and numbers", spec: "serial: 1-4\nserial: 6\nserial: 100-18446744073709551615", authority: "ca"},
	{name: "a key id", spec: "id: id6", authority: "ca"},
	{name: "key ids of any authority", spec: "id: id6\nid: id0", authority: "none"},
	{name: "a key", spec: "key: %key"},
	{name: "a key's SHA1", spec: "sha1: %key"},
	{name: "a key's SHA256", spec: "sha256: %key"},
	{name: "an authority", spec: "key: %ca"},
	{name: "an authority's hash", spec: "sha256: %other"},
	{name: "another key", spec: "key: %stranger"},
}

// text puts keys into a specification.
func (b *bench) text(t testing.TB, spec string) string {
	for _, name := range []string{"key", "ca", "other", "stranger"} {
		line := string(ssh.MarshalAuthorizedKey(b.key(t, name+".pub")))
		spec = strings.ReplaceAll(spec, "%"+name, strings.TrimSpace(line))
	}
	return spec + "\n"
}

func (b *bench) args(authority string) []string {
	switch authority {
	case "":
		return nil
	case "none": // is ssh-keygen's word for any
		return []string{"-s", authority}
	}
	return []string{"-s", authority + ".pub"}
}

// TestListsOfOpenSSH asks ssh-keygen and us the same of the same lists.
func TestListsOfOpenSSH(t *testing.T) {
	b := newBench(t)
	for _, tt := range specs {
		t.Run(tt.name, func(t *testing.T) {
			list, err := Parse(b.list(t, b.text(t, tt.spec), b.args(tt.authority)...))
			if err != nil {
				t.Fatal(err)
			}
			var all int
			for _, name := range b.keys {
				cmd := exec.Command("ssh-keygen", "-Q", "-f", "krl", name)
				cmd.Dir = b.dir
				out, err := cmd.CombinedOutput()
				want := err != nil
				if want != strings.Contains(string(out), "REVOKED") {
					t.Fatalf("ssh-keygen -Q: %v: %s", err, out)
				}
				if got := list.Revokes(b.key(t, name)); got != want {
					t.Errorf("%s: revoked %v, want %v", name, got, want)
				}
				if want {
					all++
				}
			}
			if (all > 0) != (tt.spec != "") {
				t.Errorf("%d revoked: the test shows nothing", all)
			}
		})
	}
}

// field is a string of RFC 4251.
func field(data string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(data)))) + data
}

func header(rest string) string {
	return magic + "\x00\x00\x00\x01" + strings.Repeat("\x00", 24) + field("") + field("a comment") + rest
}

func number(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func TestBadLists(t *testing.T) {
	certs := func(sections string) string { return header("\x01" + field(field("")+field("")+sections)) }
	tests := []struct{ name, data string }{
		{"nothing but the magic", magic},
		{"other format", strings.Replace(header(""), "\x01", "\x02", 1)},
		{"cut header", header("")[:30]},
		{"NUL in the comment", magic + "\x00\x00\x00\x01" + strings.Repeat("\x00", 24) + field("") + field("a\x00b")},
		{"cut section", header("\x02\x00\x00\x00\x09x")},
		{"unknown section", header("\x09" + field(""))},
		{"short hash", header("\x03" + field(field("x")))},
		{"cut key", header("\x02" + field("\x00\x00\x00\x09x"))},
		{"authority that is no key", header("\x01" + field(field("x")+field("")))},
		{"unknown section of certificates", certs("\x30" + field(""))},
		{"serial number 0", certs("\x20" + field(number(0)))},
		{"half a serial number", certs("\x20" + field("\x00\x01"))},
		{"range from 0", certs("\x21" + field(number(0)+number(5)))},
		{"range backwards", certs("\x21" + field(number(6)+number(5)))},
		{"more after a range", certs("\x21" + field(number(5)+number(6)+"x"))},
		{"negative bitmap", certs("\x22" + field(number(5)+field("\x80")))},
		{"bitmap with number 0", certs("\x22" + field(number(0)+field("\x01")))},
		{"bitmap beyond the last number", certs("\x22" + field(number(1<<64-8)+field("\x01\x00")))},
		{"bitmap too long", certs("\x22" + field(number(5)+field(strings.Repeat("\x01", maxBitmap+1))))},
		{"signature that is none", header("\x04" + field("x") + field("y"))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.data)); err == nil || errors.Is(err, ErrNoList) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := Parse([]byte("ssh-ed25519 AAAA")); !errors.Is(err, ErrNoList) {
		t.Errorf("keys: %v", err)
	}
	if _, err := Parse([]byte(certs("\x22" + field(number(1<<64-8)+field("\x01"))))); err != nil {
		t.Errorf("bitmap at the last number: %v", err)
	}
}

func TestSignedLists(t *testing.T) {
	newKey := func() ssh.Signer {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	sign := func(list string, by ssh.Signer) string {
		list += "\x04" + field(string(by.PublicKey().Marshal()))
		sig, err := by.Sign(rand.Reader, []byte(list))
		if err != nil {
			t.Fatal(err)
		}
		return list + field(string(ssh.Marshal(sig)))
	}
	one, two := newKey(), newKey()
	plain := header("\x02" + field(field("some key")))
	signed := sign(plain, one)
	tests := []struct {
		name, data string
		ok         bool
	}{
		{"once", signed, true},
		{"by two", sign(signed, two), true},
		{"twice by one", sign(signed, one), false},
		{"changed since", strings.Replace(signed, "some", "same", 1), false},
		{"more after it", signed + "\x02" + field(field("other key")), false},
		{"by a key that it revokes", sign(header("\x02"+field(field(string(one.PublicKey().Marshal())))), one), false},
		{"by that and another", sign(sign(header("\x02"+field(field(string(one.PublicKey().Marshal())))), one), two), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse([]byte(tt.data)); (err == nil) != tt.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// FuzzParse has any bytes read: no panic, and nothing held but what the bytes can be.
func FuzzParse(f *testing.F) {
	b := newBench(f)
	for _, s := range specs {
		f.Add(b.list(f, b.text(f, s.spec), b.args(s.authority)...))
	}
	f.Add([]byte(header("\x04" + field("x") + field("y"))))
	key, cert := b.key(f, "key.pub"), b.key(f, b.keys[len(b.keys)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := Parse(data)
		if err != nil {
			return
		}
		list.Revokes(cert)
		if list.Revokes(key) && !list.Revokes(cert) {
			t.Error("the key is revoked, its certificate isn't")
		}
	})
}
