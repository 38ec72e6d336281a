package channel

import (
	"net"
	"runtime"
	"sync"
	"testing"

	"ssm-ssh/ssmchannel"
	"ssm-ssh/test/lab"
)

// beyond is a host that the node reaches and that is not its localhost, as far as the system has one.
func beyond() string {
	if runtime.GOOS == "linux" { // all of 127/8 is there
		return "127.0.0.2"
	}
	return "127.0.0.1"
}

// TestToRemoteHost: the session leads to a port of another host, with many connections, which go on when
// websockets of either side are lost under them.
func TestToRemoteHost(t *testing.T) {
	r := newSmokeRig(t, lab.Options{})
	l, err := net.Listen("tcp", net.JoinHostPort(beyond(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	r.accept(l, sized)
	conn := r.open(toHost, map[string]string{"host": beyond(), "portNumber": port})
	m, err := ssmchannel.StartPortMux(conn)
	if err != nil || !m.Multiplexed() {
		t.Fatalf("multiplexed %v, %v", m.Multiplexed(), err)
	}
	defer m.Close()
	for _, strike := range []func(){func() {}, r.lab.Faults().CutClients, r.lab.Faults().CutAgents, r.lab.Faults().ByeClients} {
		var all sync.WaitGroup
		for i := range 10 {
			c := r.connect(m)
			all.Go(func() {
				defer c.Close()
				for n := range 3 {
					if i == 0 && n == 1 {
						strike()
					}
					if err := ask(c, random(1000+37*i)); err != nil {
						t.Errorf("connection %d: %v", i, err)
					}
				}
			})
		}
		all.Wait()
	}
	m.Close()
	r.awaitNoSession()
	if c := r.lab.Counts(); c.StartSession != 1 || c.ResumeSession == 0 || c.EarlyDiscarded > 0 {
		t.Errorf("%+v", c)
	}
}
