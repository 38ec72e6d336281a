package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"ssm-ssh/internal/testenv"
)

// lineReader reads what a command that has been started says.
type lineReader struct {
	*pairing
	*bufio.Reader
}

// lines starts a command and returns what it says.
func (p *pairing) lines(cmd *exec.Cmd) lineReader {
	p.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { cmd.Process.Kill() })
	return lineReader{p, bufio.NewReader(out)}
}

func (l lineReader) want(line string) {
	l.pairing.Helper()
	if got, err := l.ReadString('\n'); got != line || err != nil {
		l.Fatalf("got %q, %v; want %q", got, err, line)
	}
}

// showAgent: asked for and granted by the master's ForwardAgent, the agent is there.
func (p *pairing) showAgent() {
	testenv.Need(p.T, "ssh-agent", "ssh-add")
	agent := p.path("agent" + p.name()[max(0, len(p.name())-40):])
	daemon := p.prepare(exec.Command("ssh-agent", "-D", "-a", agent))
	if err := daemon.Start(); err != nil {
		p.Fatal(err)
	}
	defer func() { daemon.Process.Kill(); daemon.Wait() }()
	p.await("the agent", func() bool { return exists(agent) })
	in := *p
	in.rig = p.within(p.T)
	in.env = append(in.env[:len(in.env):len(in.env)], "SSH_AUTH_SOCK="+agent)
	willing, unwilling := in.master("-A"), in.master("-a")
	const ask = `ssh-add -l 2>&1 || echo "status $?"`
	in.want(in.run(in.clientOf(unwilling, "-A", "x", ask)), 0, "Could not open a connection to your authentication agent.\nstatus 2\n", "")
	in.want(in.run(in.clientOf(willing, "-A", "x", ask)), 0, "The agent has no identities.\nstatus 1\n", "")
}

// showAsk: a master with ControlMaster ask has each request confirmed by ssh-askpass.
func (p *pairing) showAsk() {
	dir := p.path("ask" + p.name())
	if err := os.Mkdir(dir, 0o700); err != nil {
		p.Fatal(err)
	}
	answer := func(word string) {
		if err := os.WriteFile(dir+"/answer", []byte(word+"\n"), 0o600); err != nil {
			p.Fatal(err)
		}
	}
	const askpass = "#!/bin/sh\necho \"$SSH_ASKPASS_PROMPT: $1\" >>%[1]s/asked\nexec cat %[1]s/answer\n"
	if err := os.WriteFile(dir+"/askpass", fmt.Appendf(nil, askpass, dir), 0o700); err != nil {
		p.Fatal(err)
	}
	in := *p
	in.rig = p.within(p.T)
	in.env = append(in.env[:len(in.env):len(in.env)], "DISPLAY=:99", "SSH_ASKPASS="+dir+"/askpass")
	answer("yes")
	path := in.master("-o", "ControlMaster=autoask")
	answer("no")
	own := p.direct(p.program(), "echo own")
	p.want(p.sharing(own, path, "no"), 0, "own\n", "Master refused session request: Permission denied\r\n")
	p.want(p.run(p.clientOf(path, "-O", "stop", "x")), 255, "", "Master refused stop listening request: Permission denied\r\n")
	p.want(p.run(p.clientOf(path, "-O", "exit", "x")), 255, "", "Master refused termination request: Permission denied\r\n")
	p.want(p.run(p.clientOf(path, "-W", "127.0.0.1:1", "x")), 255, "", "Master refused stdio forwarding request: Permission denied\r\n")
	p.want(p.run(p.clientOf(path, "-O", "forward", "-L", "1:127.0.0.1:1", "x")), 255, "",
		"Master refused forwarding request: Permission denied\r\nmuxclient: master forward request failed\r\n")
	p.want(p.run(p.clientOf(path, "-O", "check", "x")), 0, "", fmt.Sprintf("Master running (pid=%d)\r\n", p.masterPID(path)))
	answer("")
	p.want(p.run(p.clientOf(path, "x", "echo granted")), 0, "granted\n", "")
	host := "127.0.0.1"
	if p.ourMaster {
		host = p.target()
	}
	asked, err := os.ReadFile(dir + "/asked")
	want := strings.ReplaceAll("confirm: Allow shared connection to NODE? \nconfirm: Allow shared connection to NODE? \n"+
		"confirm: Disable further multiplexing on shared connection to NODE? \nconfirm: Terminate shared connection to NODE? \n"+
		"confirm: Allow forward to 127.0.0.1:1? \nconfirm: Open local forward LOCALHOST:1 -> 127.0.0.1:1 on NODE?\n"+
		"confirm: Allow shared connection to NODE? \n", "NODE", host)
	if string(asked) != want || err != nil {
		p.Errorf("asked %q, %v\nwant  %q", asked, err, want)
	}
	answer("yes")
	p.want(p.run(p.clientOf(path, "-O", "exit", "x")), 0, "", "Exit request sent.\r\n")
}

// showFiles carries files by all that Ansible, people and tools use.
func (p *pairing) showFiles() {
	testenv.Need(p.T, "rsync", "git")
	up := make([]byte, short(64<<20, 256<<10))
	down := up[:short(8<<20, 128<<10)] // less than 1 MB/s comes from a node
	rand.Read(up)
	dir := p.path("files" + p.name())
	if err := os.MkdirAll(dir, 0o777); err != nil {
		p.Fatal(err)
	}
	os.Chmod(dir, 0o777)
	for name, data := range map[string][]byte{"up": up, "down": down} {
		if err := os.WriteFile(dir+"/"+name, data, 0o644); err != nil {
			p.Fatal(err)
		}
	}
	program, err := exec.LookPath(p.program())
	if err != nil {
		p.Fatal(err)
	}
	over := []string{"-S", program, "-F", "none", "-o", "ControlPath=" + p.cp}
	shell := program + " -F none -S " + p.cp
	sftp := exec.Command("sftp", append(over, "-q", "-b", "-", "x")...)
	sftp.Stdin = strings.NewReader(fmt.Sprintf("put %[1]s/up %[1]s/sftp.up\nget %[1]s/down %[1]s/sftp.down\n", dir))
	git := func(args ...string) *exec.Cmd {
		cmd := exec.Command("git", args...)
		cmd.Env = []string{"GIT_SSH_COMMAND=" + shell, "GIT_CONFIG_GLOBAL=/dev/null"}
		return cmd
	}
	for _, cmd := range []*exec.Cmd{
		sftp,
		exec.Command("scp", append(over, "-q", dir+"/up", "x:"+dir+"/scp.up")...),
		exec.Command("scp", append(over, "-q", "-O", "x:"+dir+"/down", dir+"/scp-O.down")...),
		exec.Command("rsync", "-e", shell, dir+"/up", "x:"+dir+"/rsync.up"),
		exec.Command("rsync", "-e", shell, "x:"+dir+"/down", dir+"/rsync.down"),
		exec.Command("git", "init", "-q", "--bare", dir+"/repository"),
		git("clone", "-q", "-u", "git -c safe.directory=* upload-pack", "x:"+dir+"/repository", dir+"/clone"),
	} {
		if got := p.run(cmd); got.status != 0 {
			p.Errorf("%s: %+v", cmd.Args, got)
		}
	}
	for _, name := range []string{"sftp.up", "sftp.down", "scp.up", "scp-O.down", "rsync.up", "rsync.down"} {
		data := up
		if strings.HasSuffix(name, ".down") {
			data = down
		}
		if got, err := os.ReadFile(dir + "/" + name); err != nil || !bytes.Equal(got, data) {
			p.Errorf("%s: %d bytes of %d, %v", name, len(got), len(data), err)
		}
	}
	os.RemoveAll(dir)
}

// showEscapes types what clientloop.c, process_escapes, knows.
func (p *pairing) showEscapes() {
	term := p.terminalOf(p.client("-t", "x", `stty -echo; echo ready; while read line; do echo "<$line>"; done`))
	term.expect("ready")
	// OpenSSH's master has one memory of where a line began for all of its sessions.
	io.WriteString(term, "\r")
	term.expect("<>")
	const none = " escape not available to multiplexed sessions\r\n"
	steps := []struct{ typed, shown string }{
		{"~~tilde\r", "<~tilde>"},
		{"~user\r", "<~user>"},
		{"~?", "Supported escape sequences:"},
		{"~B", "~B"},
		{"~#", "~#\r\nThe following connections are open:\r\n  #"},
		{"~#", "client-session"},
		{"~C", "~C" + none},
		{"~V", "~V" + none},
		{"~v", "~v" + none},
		{"~&", "~&" + none},
		{"~\x1a", "~^Z" + none},
		{"end\r", "<end>"},
	}
	for _, s := range steps {
		if _, err := io.WriteString(term, s.typed); err != nil {
			p.Fatal(err)
		}
		term.expect(s.shown)
	}
	io.WriteString(term, "~.")
	term.expect("Shared connection to x closed.")
	term.wantStatus(255)
	p.want(p.call("x", "echo on"), 0, "on\n", "") // it ended its session only

	bare := p.client("-T", "-e", "~", "x", "cat")
	bare.Stdin = strings.NewReader("~.\n~?\n")
	p.want(p.run(bare), 0, "~.\n~?\n", "") // without a terminal there are none
	off := p.terminalOf(p.client("-e", "none", "-t", "x", `stty -echo; echo ready; read line; echo "<$line>"`))
	off.expect("ready")
	io.WriteString(off, "~.\r")
	off.expect("<~.>")
	off.wantStatus(0)
}

// showRefusedPTY has a key log in that may not have one.
func (p *pairing) showRefusedPTY() {
	path := p.withoutPTY()
	p.want(p.run(p.clientOf(path, "-tt", "x", "echo on; exit 4")), 4, "on\n", "PTY allocation request failed\r\nShared connection to x closed.\r\n")
}

// withoutPTY starts a master whose key isn't granted terminals.
func (p *pairing) withoutPTY() (path string) {
	return p.master("-i", p.keyWithoutPTY(), "-o", "IdentitiesOnly=yes")
}

// keyWithoutPTY makes a key that the node takes and that isn't granted terminals.
func (r *rig) keyWithoutPTY() (key string) {
	testenv.Need(r.T, "ssh-keygen")
	key = filepath.Join(r.sharedDir(), "nopty")
	if got := r.run(exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)); got.status != 0 {
		r.Fatalf("ssh-keygen: %+v", got)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		r.Fatal(err)
	}
	keys, err := os.OpenFile(r.labEnv("SSM_SSH_LAB_KEY")+".pub", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		r.Fatal(err)
	}
	defer keys.Close()
	fmt.Fprintf(keys, "\nno-pty %s", public)
	return key
}

// showProxy: the connection's packets go through the control socket, and no descriptor does.
func (p *pairing) showProxy() {
	proxied := func(command, stdin string) result {
		cmd := p.client("-O", "proxy", "x", command)
		cmd.Stdin = strings.NewReader(stdin)
		return p.run(cmd)
	}
	p.want(proxied("echo out; echo err >&2; exit 5", ""), 5, "out\n", "err\n")
	p.want(proxied("cat; echo EOF", "abc"), 0, "abcEOF\n", "")
	p.want(proxied("kill -9 $$", ""), 255, "", "")
	big := strings.Repeat("0123456789abcdef", short(3<<16, 1<<15)) // 3 MiB: beyond every window
	if got := proxied("cat", big); got.status != 0 || got.stdout != big {
		p.Errorf("%d bytes of %d, %q, status %d", len(got.stdout), len(big), got.stderr, got.status)
	}
}
