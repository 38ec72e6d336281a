package lab

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Region is the made-up lab's region; its name is a real one, since clients check the form.
const Region = "eu-central-1"

// Timing holds the waits of service and agent. Zero values take the documented ones, but for
// Spawn and Linger, whose documented values are in RealTiming.
type Timing struct {
	Spawn        time.Duration // StartSession to the worker's websocket; 0 is 80 ms
	Handshake    time.Duration // limit for the client's answer; 0 is 15 s
	PortDial     time.Duration // added before the port is dialled: input is refused meanwhile
	CrashSilence time.Duration // after a refused port, until the service hears of it; 0 is 60 s
	Linger       time.Duration // life of the worker after its session; 0 is 50 ms
	ShellStart   time.Duration // a command's start to its first output; 0 is 1 s
	Idle         time.Duration // idle session time-out; 0 is 20 min
	MaxDuration  time.Duration // 0 is unlimited
	AgentPing    time.Duration // 0 is 54 s
}

// RealTiming returns the waits as seen with the real agent, none of them shortened.
func RealTiming() Timing { return Timing{Linger: 3 * time.Second}.orDefault() }

func (t Timing) orDefault() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Spawn, 80 * time.Millisecond},
		{&t.Handshake, 15 * time.Second},
		{&t.CrashSilence, 60 * time.Second},
		{&t.Linger, 50 * time.Millisecond},
		{&t.ShellStart, shellStart},
		{&t.Idle, 20 * time.Minute},
		{&t.AgentPing, pingEvery},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Options are what a lab is made of.
type Options struct {
	Nodes         int           // 0 is 1
	RTT           time.Duration // of the clients' hops: API and gateway
	Link          Link          // more of the same; its RTT is used when RTT is 0
	AgentLink     Link          // of the workers' hop to the gateway
	Dir           string        // for keys and files; empty: a temporary one, removed by Close
	PlainHTTP     bool          // no TLS; for measurements only
	InProcessSSHD bool          // a small server in place of the system's sshd: for nodes by the hundred
	Inotify       bool          // sessions watch folders as the agent does (ipc_linux.go); Linux only
	AgentVersion  string        // empty: 3.3.987.0
	PortBuffer    int           // bytes of the socket from a worker to its port; 0 is the system's, up to megabytes
	Encrypt       bool          // sessions but those of ports ask for encryption with the lab's KMS key
	// RequireChallenge refuses clients that do not bind the agent's challenge to the data key
	// (amazon-ssm-agent.json: Kms.RequireKMSChallengeResponse).
	RequireChallenge bool
	Timing           Timing
	Faults           FaultSet
	Logf             func(level int, format string, args ...any) // nil: silent
}

const defaultAgentVersion = "3.3.987.0"

// Lab is a running stand-in.
type Lab struct {
	opts      Options
	ctx       context.Context // ends when Close begins the teardown
	cancel    context.CancelCauseFunc
	dir       string
	ownDir    bool
	user      string
	keys      credentials
	kms       keyService
	clientKey hostKey

	apiURL, gatewayURL, agentURL, controlURL string
	agentHTTP                                *http.Client
	apiHop, gatewayHop, agentHop             *hop
	servers                                  []*http.Server

	nodes    []*Node
	sessions registry
	faults   *Faults
	count    counters

	mu       sync.Mutex
	closing  bool
	running  sync.WaitGroup // servers, handlers, background work
	closed   sync.Once
	closeErr error
}

// Start makes a lab. It lives until Close; ctx bounds the start only.
func Start(ctx context.Context, opts Options) (*Lab, error) {
	l, err := newLab(opts)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := l.start(ctx); err != nil {
		l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func newLab(opts Options) (*Lab, error) {
	if opts.Logf == nil {
		opts.Logf = func(int, string, ...any) {}
	}
	if opts.Nodes <= 0 {
		opts.Nodes = 1
	}
	if opts.RTT > 0 {
		opts.Link.RTT = opts.RTT
	}
	if opts.AgentVersion == "" {
		opts.AgentVersion = defaultAgentVersion
	}
	opts.Timing = opts.Timing.orDefault()
	l := &Lab{opts: opts, dir: opts.Dir, keys: credentials{
		keyID: "AKIALAB" + strings.ToUpper(randomHex(13)), secret: randomHex(40), region: Region}}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	var err error
	if l.kms, err = newKeyService(); err != nil {
		return nil, err
	}
	l.apiHop = newHop("api", opts.Link, &l.count.connects)
	l.gatewayHop = newHop("gateway", opts.Link, &l.count.connects)
	l.agentHop = newHop("agent", opts.AgentLink, nil)
	l.faults = newFaults(l, opts.Faults)
	if l.dir == "" {
		dir, err := os.MkdirTemp("", "ssm-ssh-lab-")
		if err != nil {
			return nil, err
		}
		l.dir, l.ownDir = dir, true
	} else if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return nil, err
	}
	// A login that is not ours must reach its authorized keys through the folder.
	return l, os.Chmod(l.dir, 0o755)
}

func (l *Lab) start(ctx context.Context) error {
	var err error
	if l.user, err = loginUser(l.opts.Logf); err != nil {
		return err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if l.clientKey, err = newKey(l.path("id_ed25519"), private); err != nil {
		return err
	}
	cert, caPEM, err := authority()
	if err != nil {
		return err
	}
	if err := l.newNodes(ctx); err != nil {
		return err
	}
	if err := l.writeFiles(caPEM); err != nil {
		return err
	}
	return l.listen(cert)
}

// listen starts the servers: API, the gateway's two sides, control.
func (l *Lab) listen(cert tls.Certificate) error {
	var config *tls.Config
	if !l.opts.PlainHTTP {
		config = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	}
	var err error
	if l.apiURL, err = l.serve(l.apiHop, config, l.serveAPI); err != nil {
		return err
	}
	if l.gatewayURL, err = l.serve(l.gatewayHop, config, l.serveClientChannel); err != nil {
		return err
	}
	// The worker's side has no TLS: nobody but the lab is at either end.
	if l.agentURL, err = l.serve(l.agentHop, nil, l.serveAgentChannel); err != nil {
		return err
	}
	l.agentHTTP = &http.Client{Transport: &http.Transport{}}
	if l.controlURL, err = l.serve(nil, nil, l.controlHandler().ServeHTTP); err != nil {
		return err
	}
	l.faults.apply(l.opts.Faults)
	return nil
}

// serve runs an HTTP server on a loopback port behind a hop and returns its URL.
func (l *Lab) serve(h *hop, config *tls.Config, handler http.HandlerFunc) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	scheme, addr := "http", listener.Addr().String()
	if h != nil {
		listener = h.listen(listener)
	}
	if config != nil {
		scheme, listener = "https", tls.NewListener(listener, config)
	}
	server := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.handle(handler, w, r) }),
		ErrorLog: log.New(io.Discard, "", 0), // cut connections are what the lab is for
	}
	l.servers = append(l.servers, server)
	l.running.Go(func() { server.Serve(listener) })
	return scheme + "://" + addr, nil
}

// handle counts a handler in, so that Close can wait for it, hijacked ones included.
func (l *Lab) handle(handler http.HandlerFunc, w http.ResponseWriter, r *http.Request) {
	if !l.enter() {
		return
	}
	defer l.running.Done()
	handler(w, r)
}

// background runs f, and Close waits for it.
func (l *Lab) background(f func()) {
	if !l.enter() {
		return
	}
	go func() {
		defer l.running.Done()
		f()
	}()
}

func (l *Lab) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.running.Add(1)
	return true
}

// Close ends nodes, sessions and servers, waits for all of it, and removes a folder that Start
// made. It may be called more than once.
func (l *Lab) Close() error {
	l.closed.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Lab) close() error {
	var errs []error
	for _, n := range l.nodes {
		errs = append(errs, n.close())
	}
	for _, s := range l.sessions.all() {
		s.over(stateTerminated)
	}
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.cancel(net.ErrClosed)
	for _, h := range []*hop{l.apiHop, l.gatewayHop, l.agentHop} {
		h.close()
	}
	for _, s := range l.servers {
		errs = append(errs, s.Close())
	}
	l.running.Wait()
	if l.agentHTTP != nil {
		l.agentHTTP.CloseIdleConnections()
	}
	if l.ownDir {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// Env returns NAME=value settings that make AWS clients and ssm-ssh use the lab and nothing of the
// user's own, home folder included.
func (l *Lab) Env() []string {
	noProxy := strings.Trim(os.Getenv("NO_PROXY")+",127.0.0.1,localhost,::1", ",")
	return []string{
		"AWS_ENDPOINT_URL=" + l.apiURL,
		"AWS_ENDPOINT_URL_SSM=" + l.apiURL,
		"AWS_ENDPOINT_URL_SSMMESSAGES=" + l.gatewayURL,
		"AWS_ENDPOINT_URL_STS=" + l.apiURL,
		"AWS_ENDPOINT_URL_KMS=" + l.apiURL,
		"AWS_REGION=" + Region,
		"AWS_DEFAULT_REGION=" + Region,
		"AWS_ACCESS_KEY_ID=" + l.keys.keyID,
		"AWS_SECRET_ACCESS_KEY=" + l.keys.secret,
		"AWS_SESSION_TOKEN=",
		"AWS_PROFILE=default", // an empty one is a profile of that name for the AWS CLI
		"AWS_CONFIG_FILE=" + l.path("aws_config"),
		"AWS_SHARED_CREDENTIALS_FILE=" + l.path("aws_credentials"),
		"AWS_CA_BUNDLE=" + l.path("ca.pem"),
		"AWS_EC2_METADATA_DISABLED=true",
		"NO_PROXY=" + noProxy,
		"no_proxy=" + noProxy,
		"SSM_SSH_CONFIG=" + l.path("config"),
		"XDG_STATE_HOME=" + l.path("state"), // what is remembered of the lab's sessions goes with it
		"SSM_SSH_LAB_TARGETS=" + strings.Join(l.Targets(), " "),
		"SSM_SSH_LAB_INVENTORY=" + l.path("inventory.ini"),
		"SSM_SSH_LAB_KEY=" + l.path("id_ed25519"),
		"SSM_SSH_LAB_KNOWN_HOSTS=" + l.path("known_hosts"),
		"SSM_SSH_LAB_USER=" + l.user,
		"SSM_SSH_LAB_CONTROL=" + l.controlURL,
	}
}

// Targets returns the names of the nodes.
func (l *Lab) Targets() []string {
	var names []string
	for _, n := range l.nodes {
		names = append(names, n.id)
	}
	return names
}

// Node returns the i-th node, counted from 0.
func (l *Lab) Node(i int) *Node { return l.nodes[i] }

// node returns the node of that name, nil if there is none.
func (l *Lab) node(name string) *Node {
	if i := slices.IndexFunc(l.nodes, func(n *Node) bool { return n.id == name }); i >= 0 {
		return l.nodes[i]
	}
	return nil
}

// Faults returns the lab's switchboard.
func (l *Lab) Faults() *Faults { return l.faults }

// Counts returns what the lab has seen so far.
func (l *Lab) Counts() Counts {
	c := l.count.snapshot()
	for _, s := range l.sessions.all() {
		live, ending := s.live()
		if live {
			c.LiveSessions++
		}
		if live && ending {
			c.EndingSessions++
		}
	}
	return c
}

// SetLink changes the delay of the clients' hops, for bytes not yet under way.
func (l *Lab) SetLink(link Link) {
	l.apiHop.setLink(link)
	l.gatewayHop.setLink(link)
}

// Dir returns the folder of keys, files and logs.
func (l *Lab) Dir() string { return l.dir }
