package lab

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Node is a managed node: an id, an agent, and an sshd on a loopback port of its own.
type Node struct {
	lab  *Lab
	id   string
	sshd sshServer

	mu      sync.Mutex
	agentUp bool
	closed  bool
	life    context.Context // ends when the machine goes down
	down    context.CancelCauseFunc
	workers map[string]*worker
	wg      sync.WaitGroup // one per worker
}

// sshServer is the node's SSH server: a process, or in-process where none is installed.
type sshServer interface {
	start(ctx context.Context) error
	freeze(on bool)
	processes() []int // its own and all below it; nil when it is stopped
	stop() error      // ends it and everything it started
	port() string
	hostKeys() []string // authorized_keys form
}

// ID returns the managed node id, which is the target's name.
func (n *Node) ID() string { return n.id }

// SSHPort returns the loopback port of the node's sshd.
func (n *Node) SSHPort() string { return n.sshd.port() }

func (n *Node) sshPort() string { return n.sshd.port() }

// StopAgent disconnects the agent from the service: new sessions are refused. Workers run on, as
// they do when the real agent is stopped (its unit has KillMode=process).
func (n *Node) StopAgent() { n.setAgent(false) }

// StartAgent connects the agent again.
func (n *Node) StartAgent() { n.setAgent(true) }

func (n *Node) setAgent(up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.agentUp = up
}

// StopSSHD ends the node's sshd and all its sessions; StartSSHD brings it back on the same port.
func (n *Node) StopSSHD() error { return n.sshd.stop() }

// StartSSHD starts the node's sshd again.
func (n *Node) StartSSHD(ctx context.Context) error { return n.sshd.start(ctx) }

// Freeze stops the node's sshd and the processes of its sessions where they are, or lets them go
// on: the node reads nothing and answers nothing, while its agent lives.
func (n *Node) Freeze(on bool) { n.sshd.freeze(on) }

// SSHDChildren returns how many processes sshd has for its connections, its commands' included.
func (n *Node) SSHDChildren() int { return max(len(n.sshd.processes())-1, 0) }

// Processes returns the ids of sshd, which comes first, and of all that it has started. The agent and its
// workers are part of the lab's process, and so is an in-process SSH server.
func (n *Node) Processes() []int { return n.sshd.processes() }

// Reboot ends every process of the node without a farewell, leaves it down for a while, and brings
// it back. Sessions are not told: they stay until terminated or idle.
func (n *Node) Reboot(ctx context.Context, downFor time.Duration) error {
	n.StopAgent()
	n.killWorkers()
	if err := n.sshd.stop(); err != nil {
		return fmt.Errorf("rebooting %s: %w", n.id, err)
	}
	select {
	case <-time.After(downFor):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	n.mu.Lock()
	n.life, n.down = context.WithCancelCause(n.lab.ctx)
	n.mu.Unlock()
	if err := n.sshd.start(ctx); err != nil {
		return fmt.Errorf("rebooting %s: %w", n.id, err)
	}
	n.StartAgent()
	return nil
}

// online says whether the agent is connected to the service.
func (n *Node) online() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agentUp && !n.closed
}

// startWorker is what the agent does with interactive_shell on its control channel.
func (n *Node) startWorker(s *session) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.agentUp || n.closed {
		return errors.New("agent is not connected")
	}
	w := newWorker(n.life, n, s)
	n.workers[s.id] = w
	n.wg.Go(func() {
		w.run()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.workers, s.id)
	})
	return nil
}

// terminateWorker is channel_closed on the control channel; false when no worker has the session.
func (n *Node) terminateWorker(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.workers[id]
	if w == nil {
		return false
	}
	w.cancelSession()
	return true
}

// killWorkers ends all workers at once and waits for them.
func (n *Node) killWorkers() {
	n.mu.Lock()
	n.down(errKilled)
	n.mu.Unlock()
	n.wg.Wait()
}

// close takes the node down for good.
func (n *Node) close() error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	n.killWorkers()
	if n.sshd == nil {
		return nil // the start got no further
	}
	return n.sshd.stop()
}
