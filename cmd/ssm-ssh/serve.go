package main

import (
	"context"
	"errors"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

// service is this call's own connection, which others may use too.
type service struct {
	open func(context.Context) (*sshproxy.Session, error) // a session channel for this call itself
	// stopped is closed when nobody new can come to the others, since one of them has asked for that
	// (-O stop) or the master has ended. It is nil where there are no others.
	stopped     <-chan struct{}
	connections func() []string // names what is open on the connection
	finish      func()          // waits until the others have gone
}

// serveOthers makes this call's own connection one that others may use, where ControlMaster asks
// for that without ControlPersist. This call's session is then one of many and waits for its turn.
func (c *caller) serveOthers(ctx context.Context, client *sshproxy.Client, forwarder *sshproxy.Forwarder) (service, error) {
	names := func(others func() []string) func() []string {
		return func() []string { return append([]string{"#0 client-session"}, others()...) }
	}
	alone := service{open: client.OpenSession, connections: names(forwarder.Connections), finish: func() {}}
	if c.share.create != createForeground {
		return alone, nil
	}
	listener, err := sshproxy.Listen(c.share.path)
	if errors.Is(err, sshproxy.ErrControlPathTaken) {
		c.disableSharing()
		return alone, nil
	}
	if err != nil {
		return service{}, err
	}
	cfg := masterConfig(c.opts, c.share.identity, client, c.log)
	cfg.Forwarder = forwarder
	master := sshproxy.NewMaster(client, cfg)
	release := master.Hold()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := master.Serve(ctx, listener); err != nil && ctx.Err() == nil {
			c.log.Logf(1, "control master: %v", err)
		}
	}()
	return service{open: master.OpenSession, stopped: listener.Stopped(), connections: names(master.Connections),
		finish: func() { release(); <-served }}, nil
}

// masterConfig is how a master serves its clients, in the foreground or not.
func masterConfig(opts *sshopt.Options, identity string, client *sshproxy.Client, log *logSink) sshproxy.MasterConfig {
	cfg := sshproxy.MasterConfig{
		Host: opts.Host, SendEnv: opts.SendEnv, SetEnv: opts.SetEnv, ForwardAgent: opts.ForwardAgent,
		Spares: opts.SSMSpareChannels, Forward: forwardConfig(opts, log), Signals: true, Logf: log.Logf,
	}
	if identity != "" {
		cfg.Extensions = []sshproxy.Extension{{Name: identityExtension, Value: identity}}
		cfg.Environment = new(adopter).adopt
	}
	if opts.ControlMaster == sshopt.ControlMasterAsk || opts.ControlMaster == sshopt.ControlMasterAutoAsk {
		cfg.Ask = confirmer(log)
	}
	if node, ok := client.NetConn().(*nodeConn); ok {
		cfg.Status = node.session.status
	}
	return cfg
}

// confirmer has the user confirm what clients ask for, through ssh-askpass (ssh_config(5), ControlMaster).
func confirmer(log *logSink) func(ctx context.Context, question string) bool {
	prompt := prompter(log.Logf)
	return func(ctx context.Context, question string) bool {
		yes, err := prompt.Confirm(ctx, question)
		if err != nil {
			log.Logf(1, "%s%v", question, err)
		}
		return yes && err == nil
	}
}
