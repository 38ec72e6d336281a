package channel

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"ssm-ssh/internal/awsapi"
	"ssm-ssh/internal/testenv"
	"ssm-ssh/ssmchannel"
	"ssm-ssh/test/lab"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// limit bounds every wait of these tests.
const limit = 60 * time.Second

// rig is a lab and what it takes to open data channels in it.
type rig struct {
	t   *testing.T
	lab *lab.Lab
	api *awsapi.Client
	ctx context.Context

	mu  sync.Mutex
	log strings.Builder
}

// newRig starts a lab for a test that takes long.
func newRig(t *testing.T, opts lab.Options) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("takes long: run by make test-full")
	}
	return newSmokeRig(t, opts)
}

// newSmokeRig starts a lab for a test that is in make test, too. Tests with a rig cannot be parallel: it is
// found by the environment.
func newSmokeRig(t *testing.T, opts lab.Options) *rig {
	t.Helper()
	r := &rig{t: t}
	opts.InProcessSSHD = true
	if opts.Timing.Spawn == 0 {
		opts.Timing.Spawn = time.Millisecond
	}
	if opts.Timing.ShellStart == 0 {
		opts.Timing.ShellStart = 10 * time.Millisecond
	}
	var cancel context.CancelFunc
	r.ctx, cancel = context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	var err error
	if r.lab, err = lab.Start(r.ctx, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.lab.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, kv := range r.lab.Env() {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	if r.api, err = awsapi.New(r.ctx, awsapi.Options{Logf: r.logf}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.api.Close)
	return r
}

func (r *rig) logf(level int, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Logf(format, args...)
	r.log.WriteString(format)
}

func (r *rig) target() string { return r.lab.Targets()[0] }

// config is a complete configuration of a channel.
func (r *rig) config() ssmchannel.Config {
	return ssmchannel.Config{
		HTTPClient: r.api.HTTPClient(), Sign: r.api.SignStream, Logf: r.logf,
		GenerateDataKey: r.api.GenerateDataKey, TargetID: r.target(),
		Resume: func(ctx context.Context, id string) (ssmchannel.Session, error) {
			s, err := r.api.ResumeSession(ctx, id)
			return ssmchannel.Session(s), err
		},
	}
}

// dial starts a session and opens its data channel.
func (r *rig) dial(document string, params map[string]string, cfg ssmchannel.Config) (*ssmchannel.Conn, error) {
	r.t.Helper()
	lists := make(map[string][]string)
	for name, value := range params {
		lists[name] = []string{value}
	}
	s, err := r.api.StartSession(r.ctx, awsapi.StartInput{Target: r.target(), Document: document, Parameters: lists})
	if err != nil {
		r.t.Fatal(err)
	}
	conn, err := ssmchannel.Dial(r.ctx, ssmchannel.Session(s), cfg)
	if err == nil {
		r.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

// open is dial that has to succeed.
func (r *rig) open(document string, params map[string]string) *ssmchannel.Conn {
	r.t.Helper()
	conn, err := r.dial(document, params, r.config())
	if err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// awaitNoSession checks that nothing is left behind.
func (r *rig) awaitNoSession() {
	r.t.Helper()
	if c := r.lab.Settle(r.ctx, limit); c.LiveSessions > 0 {
		r.t.Errorf("sessions are left: %+v", c)
	}
}

// serve runs handle for each connection to a port that stands for a service on the node.
func (r *rig) serve(handle func(net.Conn)) (port string) {
	r.t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.accept(l, handle)
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

// accept runs handle for each connection to a listener, which it closes with the test.
func (r *rig) accept(l net.Listener, handle func(net.Conn)) {
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	r.t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
}

// closedPort returns a port that nobody listens at.
func (r *rig) closedPort() string {
	r.t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
