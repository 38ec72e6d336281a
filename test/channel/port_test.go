package channel

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"ssm-ssh/ssmchannel"
	"ssm-ssh/test/lab"
)

const (
	forwarding = "AWS-StartPortForwardingSession"
	toHost     = "AWS-StartPortForwardingSessionToRemoteHost"
)

// mux opens a session to a port.
func (r *rig) mux(document, port string, cfg ssmchannel.Config) *ssmchannel.PortMux {
	r.t.Helper()
	params := map[string]string{"portNumber": port}
	if document == toHost {
		params["host"] = "127.0.0.1"
	}
	conn, err := r.dial(document, params, cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	m, err := ssmchannel.StartPortMux(conn)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { m.Close() })
	return m
}

func (r *rig) connect(m *ssmchannel.PortMux) net.Conn {
	r.t.Helper()
	c, err := m.Dial(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(limit))
	return c
}

func random(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(data)
	return data
}

// sized is a service that answers each request, a length and as many bytes, with
// their checksum and the bytes. Its users need no half close.
func sized(c net.Conn) {
	for {
		var length [4]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		data := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(c, data); err != nil {
			return
		}
		sum := sha256.Sum256(data)
		if _, err := c.Write(append(sum[:], data...)); err != nil {
			return
		}
	}
}

// ask sends a request to sized and checks its answer.
func ask(c net.Conn, data []byte) error {
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...)); err != nil {
		return err
	}
	answer := make([]byte, sha256.Size+len(data))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if sum := sha256.Sum256(data); !bytes.Equal(answer, append(sum[:], data...)) {
		return errors.New("other bytes came back")
	}
	return nil
}

func TestHundredConnections(t *testing.T) {
	r := newRig(t, lab.Options{})
	m := r.mux(forwarding, r.serve(sized), r.config())
	if !m.Multiplexed() {
		t.Fatal("not multiplexed")
	}
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			c, err := m.Dial(r.ctx)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range 3 {
				if err := ask(c, random(1000+37*i)); err != nil {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
	if c := r.lab.Counts(); c.StartSession != 1 {
		t.Errorf("%d sessions", c.StartSession)
	}
	m.Close()
	r.awaitNoSession()
}

func TestLargeTransfers(t *testing.T) {
	tests := []struct {
		name   string
		faults lab.FaultSet
		cut    bool
	}{
		{"healthy", lab.FaultSet{}, false},
		{"lossy", lab.FaultSet{Up: lab.PathFaults{Data: lab.MessageFaults{Loss: 0.01, Dup: 0.01, Reorder: 0.01}}}, false},
		{"cut", lab.FaultSet{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, lab.Options{Faults: tt.faults})
			up, down := random(16<<20), random(1<<20)
			if testing.Short() || tt.cut { // what a cut loses downwards is repeated at ten messages a second
				up, down = up[:2<<20], down[:256<<10]
			}
			sums := make(chan [32]byte, 1)
			port := r.serve(func(c net.Conn) {
				data := make([]byte, len(up))
				var copies sync.WaitGroup
				copies.Go(func() { c.Write(down) })
				io.ReadFull(c, data)
				copies.Wait()
				sums <- sha256.Sum256(data)
				c.Read(data) // the client closes first: the agent knows no half close
			})
			m := r.mux(forwarding, port, r.config())
			c := r.connect(m)
			var writing sync.WaitGroup
			writing.Go(func() {
				if _, err := c.Write(up); err != nil {
					t.Error(err)
				}
			})
			got := make([]byte, len(down))
			if _, err := io.ReadFull(c, got[:len(got)/2]); err != nil {
				t.Fatal(err)
			}
			if tt.cut {
				r.lab.Faults().CutClients()
			}
			if _, err := io.ReadFull(c, got[len(got)/2:]); err != nil || !bytes.Equal(got, down) {
				t.Errorf("download: %v", err)
			}
			writing.Wait()
			select {
			case sum := <-sums:
				if sum != sha256.Sum256(up) {
					t.Error("upload: other bytes arrived")
				}
			case <-r.ctx.Done():
				t.Error("the upload did not arrive")
			}
		})
	}
}

// TestSlowConnection: a connection whose service reads nothing does not hold up the
// others while what is under way in it fits into the agent's buffer.
func TestSlowConnection(t *testing.T) {
	r := newRig(t, lab.Options{PortBuffer: 64 << 10})
	stop := make(chan struct{})
	port := r.serve(func(c net.Conn) {
		var kind [1]byte
		io.ReadFull(c, kind[:])
		if kind[0] == 's' {
			<-stop
			return
		}
		sized(c)
	})
	t.Cleanup(func() { close(stop) })
	m := r.mux(forwarding, port, r.config())
	slow := r.connect(m)
	if _, err := slow.Write(append([]byte("s"), random(2<<20)...)); err != nil {
		t.Fatal(err)
	}
	quick := r.connect(m)
	quick.Write([]byte("q"))
	for range 5 {
		if err := ask(quick, random(10_000)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnreadConnection: the same the other way round. What nobody reads here stops
// the others at a bound, and no more is lost than patience.
func TestUnreadConnection(t *testing.T) {
	r := newRig(t, lab.Options{})
	port := r.serve(func(c net.Conn) {
		var kind [1]byte
		io.ReadFull(c, kind[:])
		if kind[0] == 's' {
			c.Write(random(1 << 20))
			c.Read(kind[:])
			return
		}
		sized(c)
	})
	m := r.mux(forwarding, port, r.config())
	unread := r.connect(m)
	unread.Write([]byte("s"))
	quick := r.connect(m)
	quick.Write([]byte("q"))
	for range 5 {
		if err := ask(quick, random(10_000)); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 1<<20)
	if _, err := io.ReadFull(unread, got); err != nil || !bytes.Equal(got, random(1<<20)) {
		t.Errorf("the unread one: %v", err)
	}
}

func TestPortThatRefuses(t *testing.T) {
	for _, document := range []string{forwarding, toHost} {
		t.Run(document, func(t *testing.T) {
			r := newRig(t, lab.Options{})
			port := r.closedPort()
			m := r.mux(document, port, r.config())
			for range 3 {
				c := r.connect(m)
				if _, err := io.ReadAll(c); !errors.Is(err, ssmchannel.ErrPort) {
					t.Errorf("got %v", err)
				}
				c.Close()
			}
			// The session goes on, and so may the service.
			l, err := net.Listen("tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			c := r.connect(m)
			served, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(served, "hello")
			served.Close()
			if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// TestVersionsChooseTheMode: every pair of versions that changes the bytes on the
// wire works.
func TestVersionsChooseTheMode(t *testing.T) {
	tests := []struct {
		agent, client string
		multiplexed   bool
	}{
		{"3.3.987.0", "1.3.0.0", true},
		{"3.1.1511.0", "1.3.0.0", true},
		{"3.0.222.0", "1.3.0.0", true},
		{"3.0.196.0", "1.3.0.0", false},
		{"2.3.722.0", "1.3.0.0", false},
		{"3.3.987.0", "1.2.331.0", true},
		{"3.3.987.0", "1.1.70.0", true},
		{"3.3.987.0", "1.1.61.0", false},
	}
	for _, tt := range tests {
		t.Run(tt.agent+" with "+tt.client, func(t *testing.T) {
			r := newRig(t, lab.Options{AgentVersion: tt.agent})
			cfg := r.config()
			cfg.ClientVersion = tt.client
			m := r.mux(forwarding, r.serve(sized), cfg)
			if m.Multiplexed() != tt.multiplexed {
				t.Fatalf("multiplexed: %v", m.Multiplexed())
			}
			c := r.connect(m)
			if err := ask(c, random(20_000)); err != nil {
				t.Error(err)
			}
			c.Close()
			m.Close()
			r.awaitNoSession()
		})
	}
}

// TestOneAfterTheOther: without multiplexing each connection is one of its own at the
// service, with its own bytes only.
func TestOneAfterTheOther(t *testing.T) {
	r := newRig(t, lab.Options{AgentVersion: "3.0.196.0"})
	var mu sync.Mutex
	var seen []string
	port := r.serve(func(c net.Conn) {
		fmt.Fprint(c, "greeting")
		text, _ := io.ReadAll(c)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, string(text))
	})
	m := r.mux(forwarding, port, r.config())
	for i := range 3 {
		c := r.connect(m)
		if i > 0 { // the agent connects again for our first byte
			fmt.Fprint(c, i)
		}
		got := make([]byte, 8)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "greeting" {
			t.Fatalf("connection %d: %q, %v", i, got, err)
		}
		fmt.Fprintf(c, " from %d", i)
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-read; !errors.Is(err, net.ErrClosed) {
			t.Errorf("blocked read: %v", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
	}
	m.Close()
	r.awaitNoSession()
	mu.Lock()
	defer mu.Unlock()
	if want := []string{" from 0", "1 from 1", "2 from 2"}; !slices.Equal(seen, want) {
		t.Errorf("the service got %q", seen)
	}
}

// TestOnlyConnection: the session of the SSH document is one connection.
func TestOnlyConnection(t *testing.T) {
	r := newSmokeRig(t, lab.Options{})
	m := r.mux("AWS-StartSSHSession", r.serve(sized), r.config())
	c := r.connect(m)
	if err := ask(c, random(5000)); err != nil {
		t.Error(err)
	}
	c.SetReadDeadline(time.Now())
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	c.Close()
	if _, err := m.Dial(r.ctx); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second connection: %v", err)
	}
	r.awaitNoSession()
}

// TestCloseDelivers: what was written before Close arrives.
func TestCloseDelivers(t *testing.T) {
	r := newRig(t, lab.Options{RTT: 20 * time.Millisecond})
	got := make(chan []byte, 1)
	m := r.mux(forwarding, r.serve(func(c net.Conn) {
		data, _ := io.ReadAll(c)
		got <- data
	}), r.config())
	c := r.connect(m)
	data := random(300_000)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	c.Close()
	m.Close()
	select {
	case d := <-got:
		if !bytes.Equal(d, data) {
			t.Errorf("%d bytes arrived", len(d))
		}
	case <-r.ctx.Done():
		t.Error("nothing arrived")
	}
}
