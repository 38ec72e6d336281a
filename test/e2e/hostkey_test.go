package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"ssm-ssh/test/lab"
)

// knownHosts is the lab's file.
func (r *rig) knownHosts() string {
	r.Helper()
	for _, pair := range r.env {
		if path, ok := strings.CutPrefix(pair, "SSM_SSH_LAB_KNOWN_HOSTS="); ok {
			text, err := os.ReadFile(path)
			if err != nil {
				r.Fatal(err)
			}
			return string(text)
		}
	}
	r.Fatal("the lab names no file of known hosts")
	return ""
}

// TestMasterLearnsHostKeys has a master in the background forget a key that the node has no more, once, while
// its first client's command runs.
func TestMasterLearnsHostKeys(t *testing.T) {
	r := newRig(t, lab.Options{})
	known := r.knownHosts()
	name, _, _ := strings.Cut(known, " ")
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	lost, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := r.path("known_hosts")
	if err := os.WriteFile(file, []byte(known+name+" "+string(ssh.MarshalAuthorizedKey(lost))), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-o", "UserKnownHostsFile=" + file, "-o", "UpdateHostKeys=yes", r.target(), "echo", "here"}
	r.want(r.ssh(args...), 0, "here\n", "")
	r.await("the master to forget the key", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && string(text) == known
	})
	if !exists(file + ".old") {
		t.Error("the file as it was is gone")
	}
	r.want(r.ssh(args...), 0, "here\n", "")
	r.wantSessions(1)
}

// TestChangedHostKeyForbidsForwards lets a changed key through, by the words that ssh has for it.
func TestChangedHostKeyForbidsForwards(t *testing.T) {
	r := newRig(t, lab.Options{})
	name, _, _ := strings.Cut(r.knownHosts(), " ")
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := r.path("known_hosts")
	if err := os.WriteFile(file, []byte(name+" "+string(ssh.MarshalAuthorizedKey(wrong))), 0o600); err != nil {
		t.Fatal(err)
	}
	got := r.ssh("-S", "none", "-o", "UserKnownHostsFile="+file, "-o", "StrictHostKeyChecking=no", "-L", r.path("socket")+":x:1",
		r.target(), "test ! -e "+r.path("socket")+" && echo none")
	if got.status != 0 || got.stdout != "none\n" || !strings.Contains(got.stderr, "sent by the remote host is\nSHA256:") ||
		!strings.Contains(got.stderr, "\r\nPort forwarding is disabled to avoid man-in-the-middle attacks.\r\n") {
		t.Errorf("got %+v", got)
	}
}
