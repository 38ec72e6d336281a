package ssmchannel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssm-ssh/ssmchannel/agentmsg"
)

// ending is what becomes of a connection in the end.
type ending int

const (
	goesOn       ending = iota // until both sides have all bytes
	isTerminated               // by the service, without a reason
	isEnded                    // by the service, which gives one
	nodeGoes                   // and the service stays
	networkGoes                // and never comes back
	sessionGoes                // as ResumeSession says
	endings      = iota        // how many there are
)

// Limits of a chaotic connection, and how long its trouble may last at most.
const (
	chaosSilence = time.Minute
	chaosResume  = 2 * time.Minute
	chaosTrouble = 30 * time.Second // less than either
)

// chaos is a connection in a network in which anything may happen at any time.
type chaos struct {
	*scene
	random   *rand.Rand // the script's
	wall     wallClock
	ends     ending
	up, down *stream
	upBytes  int            // to be written; negative: without end
	calls    sync.WaitGroup // of Read and Write
	called   atomic.Int64
	faults   int
}

// stream is one direction: what is written, and how much of it has arrived.
type stream struct {
	written, arrived *rand.ChaCha8
	got              atomic.Int64
	want             int64
}

func newStream(seed uint64, want int) *stream {
	key := [32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)}
	return &stream{written: rand.NewChaCha8(key), arrived: rand.NewChaCha8(key), want: int64(want)}
}

func (s *stream) next(n int) []byte {
	b := make([]byte, n)
	s.written.Read(b)
	return b
}

// take compares what arrives and reports whether it is what was written.
func (s *stream) take(b []byte) bool {
	want := make([]byte, len(b))
	s.arrived.Read(want)
	s.got.Add(int64(len(b)))
	return bytes.Equal(b, want)
}

func (s *stream) complete() bool { return s.got.Load() >= s.want }

// TestChaos takes connections through random scripts of faults. Both readers see exactly what was written,
// or the connection is over with an error within its limits; and nothing else.
//
// SSM_SSH_CHAOS is how many steps to go: messages that enter or leave a hop, calls of Read and Write, and
// faults.
func TestChaos(t *testing.T) {
	steps := int64(10_000_000)
	if testing.Short() {
		steps = 150_000
	}
	if text := os.Getenv("SSM_SSH_CHAOS"); text != "" {
		var err error
		if steps, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	var made int64
	var faults, resumes int
	var ended [endings]int
	var seed uint64
	for ; made < steps && !t.Failed(); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := runChaos(t, seed)
			made += c.net.steps + c.called.Load() + int64(c.faults)
			faults += c.faults
			resumes += c.net.resumes
			ended[c.ends]++
		})
	}
	t.Logf("%d steps in %d connections, with %d faults and %d calls of ResumeSession; %d went on, %d were ended",
		made, seed, faults, resumes, ended[goesOn], seed-uint64(ended[goesOn]))
}

func runChaos(t *testing.T, seed uint64) *chaos {
	random := rand.New(rand.NewPCG(seed, 11))
	payload := []int{1, 100, 1024, 1024, 1536}[random.IntN(5)]
	cfg := Config{
		PayloadBytes: payload, WindowBytes: 16 << (10 + random.IntN(8)), IncomingBytes: 64 << (10 + random.IntN(4)),
		NodeSilence: chaosSilence, ResumeFor: chaosResume, AnswerAhead: random.IntN(2) == 0,
	}
	c := &chaos{random: random, ends: ending(random.IntN(2 * int(endings)))}
	if c.ends >= endings { // more than half go on
		c.ends = goesOn
	}
	c.upBytes = random.IntN(700 * payload)
	c.up, c.down = newStream(seed, c.upBytes), newStream(seed+1<<31, random.IntN(500<<10))
	opt := peerOptions{sink: func(b []byte) {
		if !c.up.take(b) {
			t.Error("the peer has other bytes")
		}
	}}
	inScene(t, opt, c.weather(seed), c.wall.config(cfg), func(s *scene) {
		c.scene = s
		c.play()
	})
	if c.peer.early > 0 {
		t.Errorf("%d messages sent before the handshake was complete", c.peer.early)
	}
	return c
}

// weather is what befalls messages for some time.
func (c *chaos) weather(seed uint64) faults {
	f := faults{seed: seed, delay: time.Duration(c.random.Int64N(int64(150 * ms)))}
	if c.random.IntN(3) == 0 {
		f.delay = 0
	}
	if c.random.IntN(2) == 0 {
		f.drop = 0.15 * c.random.Float64()
	}
	if c.random.IntN(2) == 0 {
		f.duplicate = 0.3 * c.random.Float64()
	}
	if c.random.IntN(2) == 0 {
		f.reorder = 0.3 * c.random.Float64()
	}
	return f
}

// play runs writers, readers and misfortune side by side until the connection has come to its end.
func (c *chaos) play() {
	ctx, stop := context.WithCancel(c.Context())
	writes, reads := rand.New(rand.NewPCG(c.random.Uint64(), 1)), rand.New(rand.NewPCG(c.random.Uint64(), 2))
	c.calls.Go(func() { c.write(ctx, writes) })
	c.calls.Go(func() { c.read(reads) })
	var other sync.WaitGroup
	other.Go(func() {
		for left := int(c.down.want); left > 0; {
			n := min(left, 20_000)
			c.peer.write(c.down.next(n))
			left -= n
			wait(ctx, 20*ms)
		}
	})
	if c.ends == goesOn {
		c.misfortune(ctx, c.delivered)
	} else {
		until := time.Now().Add(time.Duration(c.random.Int64N(int64(time.Minute))))
		c.misfortune(ctx, func() bool { return time.Now().After(until) })
		c.finish()
	}
	c.judge()
	stop()
	c.conn.Close()
	c.calls.Wait()
	other.Wait()
}

func (c *chaos) delivered() bool { return c.up.complete() && c.down.complete() }

// write writes what is to be written, or, where the connection is to end, goes on until it does.
func (c *chaos) write(ctx context.Context, random *rand.Rand) {
	for left := c.upBytes; left > 0 || c.ends != goesOn; {
		n := 1 + random.IntN(8*c.cfg.PayloadBytes)
		if c.ends == goesOn {
			n = min(n, left)
		}
		left -= n
		c.called.Add(1)
		if _, err := c.conn.Write(c.up.next(n)); err != nil {
			if c.ends == goesOn {
				c.Errorf("write: %v", err)
			}
			return
		}
		if wait(ctx, time.Duration(random.Int64N(int64(20*ms)))) != nil {
			return
		}
	}
}

// read reads until the connection is over.
func (c *chaos) read(random *rand.Rand) {
	buf := make([]byte, 64<<10)
	for {
		c.called.Add(1)
		n, err := c.conn.Read(buf[:1+random.IntN(len(buf)-1)])
		if !c.down.take(buf[:n]) {
			c.Error("other bytes were read")
			return
		}
		if err != nil {
			return
		}
		if random.IntN(50) == 0 {
			time.Sleep(time.Duration(random.Int64N(int64(2 * time.Second))))
		}
	}
}

// misfortune happens until it is enough.
func (c *chaos) misfortune(ctx context.Context, enough func() bool) {
	for began := time.Now(); !enough() && time.Since(began) < 5*time.Minute; {
		wait(ctx, time.Duration(c.random.Int64N(int64(2*time.Second))))
		c.faults++
		c.befall(ctx)
	}
	c.heal()
}

func (c *chaos) heal() {
	c.peer.setAway(false)
	c.net.set(func() { c.net.faults, c.net.refuse, c.net.resume, c.net.tap = faults{delay: 5 * ms}, nil, nil, nil })
}

// befall is one misfortune and its end.
func (c *chaos) befall(ctx context.Context) {
	long := time.Duration(c.random.Int64N(int64(chaosTrouble)))
	switch c.random.IntN(10) {
	case 0, 1:
		c.net.cut()
	case 2: // many in a row
		for range c.random.IntN(10) {
			c.net.cut()
			wait(ctx, time.Duration(c.random.Int64N(int64(300*ms))))
		}
	case 3: // no network; sockets may stay open
		c.net.set(func() {
			c.net.refuse, c.net.resume = &DialError{Err: errors.New("no network")}, errors.New("no network")
			c.net.tap = func(bool, []byte) bool { return false }
			for _, l := range c.net.links {
				l.deaf.Store(true)
			}
		})
		wait(ctx, long)
		c.net.set(func() { c.net.refuse, c.net.resume, c.net.tap = nil, nil, nil })
	case 4: // the agent's websocket is lost, and the service may say so
		say := c.random.IntN(2) == 0
		c.peer.setAway(true)
		if say {
			c.net.inject(publication(agentmsg.PausePublication))
		}
		wait(ctx, long/2)
		c.peer.setAway(false)
		if say {
			c.net.inject(publication(agentmsg.StartPublication))
		}
	case 5: // words that mean nothing
		for range 1 + c.random.IntN(5) {
			c.net.inject(c.nonsense())
		}
	case 6: // the computer sleeps
		c.wall.jump(time.Hour)
	case 7: // the peer does not read
		c.net.set(func() {
			for _, l := range c.net.links {
				l.clogged.Store(true)
			}
		})
	default:
		f := c.weather(c.random.Uint64())
		c.net.set(func() { c.net.faults = f })
	}
}

// nonsense is a message that no agent sends.
func (c *chaos) nonsense() []byte {
	m := agentmsg.Message{Type: agentmsg.OutputStreamData, CreatedMillis: 1, Sequence: c.random.Int64N(1000), PayloadType: 1, Payload: []byte("forged")}
	switch c.random.IntN(3) {
	case 0:
		m.Type = "dance"
		return agentmsg.AppendMessage(nil, &m)
	case 1:
		frame := agentmsg.AppendMessage(nil, &m)
		frame[len(frame)-1]++ // the digest does not match
		return frame
	default:
		return randomBytes(c.random.IntN(300), c.random.Uint64())
	}
}

// finish brings the end about.
func (c *chaos) finish() {
	gone := fmt.Errorf("DoesNotExist: %w", ErrSessionGone)
	c.faults++
	switch c.ends {
	case isTerminated, isEnded:
		time.Sleep(chaosTrouble) // there is a websocket again
		c.peer.end(map[ending]string{isEnded: "idle"}[c.ends])
		c.net.set(func() { c.net.resume = gone })
	case nodeGoes:
		c.peer.setAway(true)
	case networkGoes:
		c.net.set(func() { c.net.refuse, c.net.resume = errors.New("no network"), errors.New("no network") })
		c.net.cut()
	case sessionGoes:
		c.net.set(func() { c.net.resume = gone })
		c.net.cut()
	}
}

// judge holds the end to what was promised.
func (c *chaos) judge() {
	const limit = 5 * time.Minute
	over := func() bool { return isClosed(c.conn.Done()) }
	if c.ends == goesOn {
		over = c.delivered
	}
	for began := time.Now(); !over(); time.Sleep(10 * ms) {
		if time.Since(began) > limit || c.ends == goesOn && isClosed(c.conn.Done()) {
			c.Errorf("%d of %d bytes up, %d of %d down after %v more, %v; %+v", c.up.got.Load(), c.up.want,
				c.down.got.Load(), c.down.want, time.Since(began), c.conn.Err(), c.conn.Stats())
			return
		}
	}
	if c.ends != goesOn {
		c.judgeEnd(c.conn.Err())
	}
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	if o := &c.conn.out; o.empty() && (o.pipe != 0 || o.window.bytes != 0 || o.window.messages != 0) {
		c.Errorf("all is acknowledged; %d bytes on their way, window %+v", o.pipe, o.window)
	}
}

// judgeEnd: the error is the right one, and no call outlasts the connection.
func (c *chaos) judgeEnd(err error) {
	var closed *CloseError
	var right bool
	switch c.ends {
	case isTerminated: // what was under way may be missed
		right = err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF)
	case isEnded:
		right = errors.As(err, &closed) && closed.Reason == "idle"
	default:
		right = errors.Is(err, map[ending]error{nodeGoes: ErrNodeSilent, networkGoes: ErrLost, sessionGoes: ErrSessionGone}[c.ends])
	}
	if !right {
		c.Errorf("ending %d is %v", c.ends, err)
	}
	returned := make(chan struct{})
	go func() { c.calls.Wait(); close(returned) }()
	select {
	case <-returned:
	case <-time.After(30 * time.Second): // readers pause, and what was received is read first
		c.Error("a call outlasts the connection")
	}
}
