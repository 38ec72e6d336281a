package e2e

import (
	"testing"

	"golang.org/x/sys/unix"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// TestWarmCallsLeaveTheJournalAlone watches the state folder: nothing in it is opened by a call through a living
// master, ours or stock, nor by words to it; a new connection opens a lot, which shows that the watch sees it.
func TestWarmCallsLeaveTheJournalAlone(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	path := r.path("cp")
	r.want(r.ssh("-S", path, r.target(), "true"), 0, "", "")
	accesses := r.watch(r.path("state"), r.path("state/ssm-ssh"), r.path("state/ssm-ssh/sessions"))
	for i := range int64(10) {
		r.want(r.run(either(i, path, "x", "cat")), 0, "", "")
	}
	r.want(r.ssh("-S", path, r.target(), "true"), 0, "", "")
	r.masterPID(path)
	if n := accesses(); n != 0 {
		t.Errorf("%d accesses to the state folder by warm calls", n)
	}
	r.want(r.ssh("-S", "none", r.target(), "true"), 0, "", "")
	if accesses() == 0 {
		t.Error("the watch doesn't see a new connection's accesses")
	}
}

// watch counts what happens in folders and to the files in them (inotify(7)), from one call to the next.
func (r *rig) watch(dirs ...string) (accesses func() int) {
	r.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		testenv.Missing(r.T, "inotify isn't to be had: "+err.Error())
	}
	r.Cleanup(func() { unix.Close(fd) })
	for _, dir := range dirs {
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_ALL_EVENTS); err != nil {
			r.Fatalf("watching %s: %v", dir, err)
		}
	}
	return func() int {
		total := 0
		for buf := make([]byte, 4096); ; {
			n, err := unix.Read(fd, buf)
			if err != nil { // EAGAIN: that was all
				return total
			}
			total += n / unix.SizeofInotifyEvent // at least one; names are between them
		}
	}
}
