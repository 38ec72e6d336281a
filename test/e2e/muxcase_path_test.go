package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// showThreeAtOnce: one becomes the master, and all are served.
func (p *pairing) showThreeAtOnce() { p.startThree(p.fresh()) }

// showThreeAtOnceOnStale does that where a dead master has left its socket.
func (p *pairing) showThreeAtOnceOnStale() {
	path := p.master()
	pid := p.masterPID(path)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.Fatal(err)
	}
	p.await("the master's end", func() bool { return syscall.Kill(pid, 0) != nil })
	p.startThree(path)
}

func (p *pairing) startThree(path string) {
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			cmd := p.direct("ssh", fmt.Sprintf("echo %d", i))
			if p.ourMaster {
				cmd = exec.Command(binary, p.target(), fmt.Sprintf("echo %d", i))
			}
			cmd.Args = append([]string{cmd.Args[0], "-o", "ControlPersist=60"}, cmd.Args[1:]...)
			got := p.sharing(cmd, path, "auto")
			if !p.ourMaster { // whoever was late says so, and goes on alone
				got.stderr = strings.TrimPrefix(got.stderr, "ControlSocket "+path+" already exists, disabling multiplexing\r\n")
			}
			p.want(got, 0, fmt.Sprintf("%d\n", i), "")
		})
	}
	wg.Wait()
	p.want(p.run(p.clientOf(path, "x", "echo warm")), 0, "warm\n", "")
}

// showPaths is how long a path may be, where it may lie, and who may connect.
func (p *pairing) showPaths() {
	long := p.path(strings.Repeat("p", 108-len(p.dir)-1))
	tooLong := "ControlPath too long ('" + long + "' >= 108 bytes)\r\n"
	p.want(p.run(p.clientOf(long, "-O", "check", "x")), 255, "", tooLong)
	p.want(p.run(p.clientOf(long, "x", "true")), 255, "", tooLong)
	most := long[:107]
	p.want(p.run(p.clientOf(most, "-O", "check", "x")), 255, "", "Control socket connect("+most[:100]+"): No such file or directory\r\n")
	if own := p.direct(binary, "echo long"); p.ourMaster { // OpenSSH's needs 17 bytes more than the path
		own.Args = append([]string{own.Args[0], "-o", "ControlPersist=60"}, own.Args[1:]...)
		p.want(p.sharing(own, most, "auto"), 0, "long\n", "")
		p.want(p.run(p.clientOf(most, "x", "echo through")), 0, "through\n", "")
		p.want(p.run(p.clientOf(most, "-O", "exit", "x")), 0, "", "Exit request sent.\r\n")
	}
	nowhere := p.path("no/folder")
	p.want(p.run(p.clientOf(nowhere, "-O", "check", "x")), 255, "", "Control socket connect("+nowhere+"): No such file or directory\r\n")
	p.want(p.sharing(p.direct(p.program(), "echo own"), nowhere, "no"), 0, "own\n", "")
	got := p.sharing(p.direct(p.program(), "true"), nowhere, "auto")
	if got.status != 255 || !strings.HasPrefix(got.stderr, "unix_listener: cannot bind to path "+nowhere) ||
		!strings.HasSuffix(got.stderr, ": No such file or directory\r\n") {
		p.Errorf("a folder that isn't there: %+v", got)
	}
	if info, err := os.Lstat(p.cp); err != nil || info.Mode() != os.ModeSocket|0o600 {
		p.Errorf("the socket: %v, %v", info, err)
	}
	if os.Getuid() == 0 && !p.ourClient {
		foreign := p.client("-O", "check", "x")
		foreign.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		p.want(p.run(foreign), 255, "", "Control socket connect("+p.cp+"): Permission denied\r\n")
	}
}
