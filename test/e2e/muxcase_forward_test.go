package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

// hears connects and wants to be greeted as sshd greets.
func (p *pairing) hears(network, address string) {
	p.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		p.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(awaitLimit))
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		p.Errorf("through %s: %q, %v", address, line, err)
	}
}

// silent wants nobody to listen any more.
func (p *pairing) silent(network, address string) {
	p.Helper()
	p.await("the end of "+address, func() bool {
		c, err := net.Dial(network, address)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

func (p *pairing) loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// showForwardVerbs is -O forward and -O cancel, with what they print.
func (p *pairing) showForwardVerbs() {
	sshd := "127.0.0.1:" + p.lab.Node(0).SSHPort()
	verb := func(word string, args ...string) result {
		return p.call(append(append([]string{"-O", word}, args...), "x")...)
	}

	got := verb("forward", "-R", "0:"+sshd)
	var port int
	if _, err := fmt.Sscanf(got.stdout, "%d\n", &port); err != nil || got.status != 0 || got.stderr != "" {
		p.Fatalf("-R 0: %+v", got)
	}
	p.hears("tcp", p.loopback(port))
	p.want(verb("forward", "-R", "0:"+sshd), 0, fmt.Sprintf("%d\n", port), "") // once more: the same

	local := fmt.Sprintf("%d:%s", freePort(p.T), sshd)
	p.want(verb("forward", "-L", local), 0, "", "")
	p.want(verb("forward", "-L", local), 0, "", "")
	p.want(verb("cancel", "-L", local), 0, "", "")
	const refused = "mux_client_forward: forwarding request failed: "
	p.want(verb("cancel", "-L", local), 0, "", refused+"port not forwarded\r\nmuxclient: master cancel forward request failed\r\n")

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	defer busy.Close()
	p.want(verb("forward", "-L", busy.Addr().String()+":"+sshd), 255, "", refused+"Port forwarding failed\r\nmuxclient: master forward request failed\r\n")
	taken := busy.Addr().(*net.TCPAddr).Port
	if other, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", taken)); err == nil { // one free address would do
		defer other.Close()
	}
	p.want(verb("forward", "-R", fmt.Sprintf("%d:%s", taken, sshd)), 255, "",
		fmt.Sprintf("%sremote port forwarding failed for listen port %d\r\nmuxclient: master forward request failed\r\n", refused, taken))
}

// showForwards opens each kind of forward through a session's own options and cancels it.
func (p *pairing) showForwards() {
	sshd := "127.0.0.1:" + p.lab.Node(0).SSHPort()
	socket := p.path("l" + fmt.Sprint(freePort(p.T)))
	on := p.path("r" + fmt.Sprint(freePort(p.T)))
	port := freePort(p.T)
	for _, f := range []struct {
		flag, spec       string
		network, address string
	}{
		{"-L", fmt.Sprintf("%d:%s", port, sshd), "tcp", p.loopback(port)},
		{"-L", socket + ":" + sshd, "unix", socket},
		{"-R", fmt.Sprintf("%d:%s", port, sshd), "tcp", p.loopback(port)},
		{"-R", on + ":" + sshd, "unix", on},
	} {
		p.want(p.call(f.flag, f.spec, "x", "echo with"), 0, "with\n", "")
		p.hears(f.network, f.address)
		p.want(p.call("-O", "cancel", f.flag, f.spec, "x"), 0, "", "")
		p.silent(f.network, f.address)
		os.Remove(f.address)
	}
	p.want(p.call("-D", fmt.Sprint(port), "x", "echo with"), 0, "with\n", "")
	p.hearsBySOCKS(p.loopback(port), p.lab.Node(0).SSHPort())
	p.want(p.call("-O", "cancel", "-D", fmt.Sprint(port), "x"), 0, "", "")
	p.silent("tcp", p.loopback(port))
}

// hearsBySOCKS asks a SOCKS 5 server (RFC 1928) for a port of the loopback.
func (p *pairing) hearsBySOCKS(server, port string) {
	p.Helper()
	c, err := net.Dial("tcp", server)
	if err != nil {
		p.Error(err)
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(awaitLimit))
	var number uint16
	fmt.Sscan(port, &number)
	c.Write([]byte{5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, byte(number >> 8), byte(number)})
	answer := make([]byte, 2+10)
	r := bufio.NewReader(c)
	for i := range answer {
		if answer[i], err = r.ReadByte(); err != nil {
			p.Errorf("SOCKS: %x, %v", answer, err)
			return
		}
	}
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "SSH-2.0-") {
		p.Errorf("through SOCKS: %q, %v", line, err)
	}
}
