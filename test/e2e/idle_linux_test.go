package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ssm-ssh/internal/testenv"
	"ssm-ssh/test/lab"
)

// An idle master's budget (docs/decisions/014): four descriptors of its own, 20 MiB resident, and these
// goroutines.
const idleResidentKB = 20 << 10

var idleDescriptors = []string{"control socket", "journal's lock", "poller's wake", "websocket"}

// idleGoroutines are by the function that they are in. Their owners and ends are in the packages' doc.go.
var idleGoroutines = map[string]int{
	"main.main":                                           1, // waits for the master's end
	"main.withSignals":                                    1, // cmd/ssm-ssh: ends with the process's context
	"os/signal.loop":                                      1, // of the standard library, one a process
	"sshproxy.Master.Serve":                               1, // the background's is in main.main
	"sshproxy.Master.accept":                              1,
	"sshproxy.Client.serveRequests":                       1,
	"sshproxy.Client.serveChannels":                       1,
	"golang.org/x/crypto/ssh.mux.Wait":                    1, // sshproxy, the connection's end
	"sshproxy.Client.feedService":                         1, // one of its watches; the other is ServerAliveInterval's
	"sshproxy.Session.serveRequests":                      2, // of the channels kept open ahead of need, SSMSpareChannels
	"golang.org/x/crypto/ssh.mux.loop":                    1, // these three: x/crypto's, end with the connection
	"golang.org/x/crypto/ssh.handshakeTransport.kexLoop":  1,
	"golang.org/x/crypto/ssh.handshakeTransport.readLoop": 1,
	"internal/fdpass.Poller.run":                          1,
	"ssmchannel.Conn.run":                                 1,
	"ssmchannel.Conn.recvLoop":                            1,
	"ssmchannel.Conn.sendLoop":                            1,
	"ssmchannel.Conn.keepalive":                           1,
}

// unraced is the program without the race detector, whose memory means nothing.
var unraced = sync.OnceValues(func() (string, error) {
	if !testenv.Race {
		return binary, nil
	}
	path := binary + "-norace"
	out, err := exec.Command("go", "build", "-o", path, "ssm-ssh/cmd/ssm-ssh").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return path, err
})

// TestIdleMasterHoldsLittle looks at a background master, fresh and after heavy use.
func TestIdleMasterHoldsLittle(t *testing.T) {
	testenv.Need(t, "ssh", "sftp")
	program, err := unraced()
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, lab.Options{})
	r.open()
	path := r.path("cp")
	r.want(r.run(exec.Command(program, "-S", path, r.target(), "true")), 0, "", "")
	pid := r.masterPID(path)
	r.wantIdle(pid, "fresh")
	r.useHeavily(path)
	r.wantIdle(pid, "after heavy use")
	r.wantSessions(1)
}

// useHeavily has a master do all that makes it hold something, and has it resume its session.
func (r *rig) useHeavily(path string) {
	r.Helper()
	r.atOnce(50, func(i int, run string) *exec.Cmd { return either(int64(i), path, "x", run) })
	const size = 4 << 20
	up := stock(path, "x", "wc -c")
	up.Stdin = strings.NewReader(strings.Repeat("x", size))
	r.want(r.run(up), 0, fmt.Sprintf("%d\n", size), "")
	if got := r.run(stock(path, "x", fmt.Sprintf("head -c %d /dev/zero", size))); len(got.stdout) != size {
		r.Errorf("%d bytes of %d came down; %s", len(got.stdout), size, got.stderr)
	}
	there := r.path("there")
	if got := r.sftp([]string{"-o", "ControlPath=" + path}, "put "+binary+" "+there, "rm "+there); got.status != 0 {
		r.Errorf("sftp: %+v", got)
	}
	soakForward(r, path, 0)
	soakForward(r, path, 1)
	resumed := r.lab.Counts().ResumeSession
	r.lab.Faults().CutClients()
	r.want(r.run(stock(path, "x", "echo resumed")), 0, "resumed\n", "")
	if r.lab.Counts().ResumeSession == resumed {
		r.Error("the session was not resumed")
	}
}

// wantIdle waits for a master to come to rest: it has closed its connections to the API some seconds after
// the last call (internal/awsapi, idleLimit), and returned memory after its last client (cmd/ssm-ssh, restTime).
func (r *rig) wantIdle(pid int, when string) {
	r.Helper()
	var held []string
	var kb int
	defer func() { r.Logf("%s: %d KiB resident, descriptors: %s", when, kb, strings.Join(held, ", ")) }()
	r.await("an idle master's descriptors and memory", func() bool {
		held, kb = r.held(pid), footprintOf(pid).residentKB
		return slices.Equal(held, idleDescriptors) && kb > 0 && kb <= idleResidentKB
	})
}

// held names the descriptors of a process, sorted, without those of Go's runtime and stdin, stdout and
// stderr. /proc/net isn't read at one moment: a socket that is missed there is a "socket".
func (r *rig) held(pid int) []string {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	files := make(map[string]string) // by their numbers
	var runtime []string             // the numbers in the runtime's epoll set
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil {
			continue // closed meanwhile
		}
		number := filepath.Base(link)
		files[number] = to
		if to == "anon_inode:[eventpoll]" {
			runtime = append(runtime, epollSet(pid, number)...)
		}
	}
	var names []string
	for number, to := range files {
		if name := r.descriptorName(number, to, slices.Contains(runtime, number)); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// inherited tells the descriptors that a process in the foreground may have from whoever has started the tests.
func inherited(name string) bool {
	return strings.HasPrefix(name, "/") || strings.HasPrefix(name, "pipe:")
}

// epollSet lists the descriptors that an epoll instance watches (proc(5), fdinfo).
func epollSet(pid int, number string) (watched []string) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, number))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "tfd:" {
			watched = append(watched, f[1])
		}
	}
	return watched
}

// descriptorName says what a descriptor is, "" for what isn't ours to count. The runtime has an epoll instance,
// an eventfd in it that ends its sleep (runtime/netpoll_epoll.go), and the files of a cgroup's processor
// limit, which GOMAXPROCS follows (internal/runtime/cgroup): one with version 2, two with version 1.
func (r *rig) descriptorName(number, to string, inEpoll bool) string {
	inode, isSocket := strings.CutPrefix(to, "socket:[")
	switch {
	case len(number) == 1 && number <= "2":
		return ""
	case to == "anon_inode:[eventpoll]", to == "anon_inode:[eventfd]" && inEpoll, strings.HasPrefix(to, "/sys/fs/cgroup/"):
		return ""
	case to == "anon_inode:[eventfd]":
		return "poller's wake"
	case filepath.Dir(to) == filepath.Join(r.path("state"), "ssm-ssh", "sessions"):
		return "journal's lock"
	case isSocket:
		return r.socketName(strings.TrimSuffix(inode, "]"))
	}
	return to
}

// socketName says what a socket is by the tables in /proc/net.
func (r *rig) socketName(inode string) string {
	const listening = "00010000" // __SO_ACCEPTCON in the flags
	for _, f := range table("unix") {
		if len(f) > 6 && f[6] == inode && f[3] == listening {
			return "control socket"
		}
	}
	for _, f := range table("tcp") {
		if len(f) < 10 || f[9] != inode {
			continue
		}
		_, hex, _ := strings.Cut(f[2], ":")
		port, _ := strconv.ParseUint(hex, 16, 16)
		for _, pair := range r.lab.Env() {
			switch name, url, _ := strings.Cut(pair, "="); {
			case !strings.HasSuffix(url, fmt.Sprintf(":%d", port)):
			case name == "AWS_ENDPOINT_URL_SSMMESSAGES":
				return "websocket"
			case name == "AWS_ENDPOINT_URL_SSM":
				return "connection to the API"
			}
		}
		return "connection to port " + strconv.Itoa(int(port))
	}
	return "socket"
}

// table reads one of /proc/net.
func table(name string) (rows [][]string) {
	text, _ := os.ReadFile("/proc/net/" + name)
	for line := range strings.Lines(string(text)) {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// TestGoroutinesOfAnIdleMaster has a master say them itself, as it dies of SIGABRT. It is one in the foreground:
// one in the background has given up its stderr, and differs by its SIGWINCH watch and by serving in main.
func TestGoroutinesOfAnIdleMaster(t *testing.T) {
	testenv.Need(t, "ssh", "sftp")
	moments := []string{"fresh", "after heavy use"}
	if testing.Short() {
		moments = moments[:1]
	}
	for _, when := range moments {
		t.Run(when, func(t *testing.T) {
			r := newRig(t, lab.Options{})
			r.open()
			path := r.path("cp")
			cmd := r.prepare(exec.Command(binary, "-M", "-N", "-S", path, r.target()))
			var said strings.Builder
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			r.await("the control socket", func() bool { return exists(path) })
			if when != "fresh" {
				r.useHeavily(path)
			}
			r.awaitRest(cmd.Process.Pid)
			cmd.Process.Signal(syscall.SIGABRT)
			cmd.Wait()
			if found := goroutines(said.String()); !maps.Equal(found, idleGoroutines) {
				t.Errorf("goroutines are\n%v\nwant\n%v\nin\n%s", found, idleGoroutines, said.String())
			}
			r.want(r.ssh("-S", "none", r.target(), "true"), 0, "", "") // ends the session of the killed one
		})
	}
}

// awaitRest waits until a master holds what an idle one does, and nothing has run in it for a while: channels that
// are being opened ahead of need are not to be seen from outside.
func (r *rig) awaitRest(pid int) {
	r.Helper()
	const while = 2 * time.Second
	ran, since := 0, time.Now()
	r.await("an idle master", func() bool {
		if now := testenv.Switches(r.T, pid); now != ran {
			ran, since = now, time.Now()
		}
		return time.Since(since) > while && slices.Equal(slices.DeleteFunc(r.held(pid), inherited), idleDescriptors)
	})
}

var (
	stackArguments = regexp.MustCompile(`\([^()]*\)$`)
	anonymous      = regexp.MustCompile(`(\.(func|gowrap)?\d+)+$|-fm$`)
)

// goroutines counts those of a dump by the outermost function of each that has a name, or else by the one
// that has started it. The runtime's own are left out.
func goroutines(dump string) map[string]int {
	found := make(map[string]int)
	for block := range strings.SplitSeq(dump, "\n\n") {
		if strings.HasPrefix(block, "goroutine ") && !strings.HasPrefix(block, "goroutine 0 ") && !strings.Contains(block, "\ncreated by runtime.") {
			found[goroutineName(block)]++
		}
	}
	return found
}

func goroutineName(block string) (name string) {
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		function := stackArguments.ReplaceAllString(line, "")
		switch {
		case function == line, strings.HasPrefix(line, "goroutine "), strings.HasPrefix(line, "runtime."), strings.HasPrefix(line, "sync."):
			continue
		case !anonymous.MatchString(function):
			name = function
		case name == "" || strings.HasPrefix(name, "internal/"):
			name = anonymous.ReplaceAllString(function, "")
		}
	}
	return strings.NewReplacer("ssm-ssh/", "", "(*", "", ")", "").Replace(name)
}

// TestFileLimit: Go's runtime raises the soft limit on open files to one below the hard one when a process starts
// (syscall/rlimit.go), and gives the programs that it starts the limit that it has found. So the master that a
// client starts can serve any crowd, and what a ProxyCommand runs sees what the user has set.
func TestFileLimit(t *testing.T) {
	testenv.Need(t, "ssh")
	const soft = 100
	r := newRig(t, lab.Options{})
	path := r.path("cp")
	limited := func(args ...string) *exec.Cmd {
		return exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -Sn %d; exec "$0" "$@"`, soft), binary}, args...)...)
	}
	r.want(r.run(limited("-S", path, r.target(), "true")), 0, "", "")
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.masterPID(path)))
	if err != nil {
		t.Fatal(err)
	}
	var now, most int
	for line := range strings.Lines(string(limits)) {
		fmt.Sscanf(line, "Max open files %d %d", &now, &most)
	}
	if now < most-1 || most <= soft {
		t.Errorf("the master's limit on open files is %d of %d", now, most)
	}
	r.atOnce(2*soft/3, func(_ int, run string) *exec.Cmd { return stock(path, "x", run) }) // three descriptors each, and its connection
	seen := r.path("seen")
	r.run(limited("-o", fmt.Sprintf("ProxyCommand=sh -c 'ulimit -Sn >%s'", seen), "plain.example", "true"))
	if text, err := os.ReadFile(seen); string(text) != fmt.Sprintln(soft) {
		t.Errorf("a ProxyCommand's limit is %q, %v; want %d", text, err, soft)
	}
}

// TestListingKeepsNoMaster lists the sessions again and again while a master's time runs out.
func TestListingKeepsNoMaster(t *testing.T) {
	testenv.Need(t, "ssh")
	r := newRig(t, lab.Options{})
	path := r.path("cp")
	r.want(r.ssh("-S", path, "-o", "ControlPersist=2", r.target(), "true"), 0, "", "")
	r.await("the master's end", func() bool {
		if got := r.ssh("sessions", "list"); got.status != 0 {
			t.Fatalf("sessions list: %+v", got)
		}
		return !exists(path)
	})
}
