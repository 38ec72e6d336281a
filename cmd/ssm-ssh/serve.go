package main

import (
	"context"
	"errors"

	"ssm-ssh/internal/sshopt"
	"ssm-ssh/sshproxy"
)

// openSession opens a session channel.
type openSession func(context.Context) (*sshproxy.Session, error)

// serveOthers makes this call's own connection one that others may use, where ControlMaster asks
// for that without ControlPersist. This call's session is then one of many: open opens it in its
// turn. finish waits until the others have gone.
func (c *caller) serveOthers(ctx context.Context, client *sshproxy.Client, forwarder *sshproxy.Forwarder) (open openSession, finish func(), err error) {
	if c.share.create != createForeground {
		return client.OpenSession, func() {}, nil
	}
	listener, err := sshproxy.Listen(c.share.path)
	if errors.Is(err, sshproxy.ErrControlPathTaken) {
		c.disableSharing()
		return client.OpenSession, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	cfg := masterConfig(c.opts, c.share.identity, c.log)
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
	return master.OpenSession, func() { release(); <-served }, nil
}

// masterConfig is how a master serves its clients, in the foreground or not.
func masterConfig(opts *sshopt.Options, identity string, log *logSink) sshproxy.MasterConfig {
	cfg := sshproxy.MasterConfig{
		Host: opts.Host, SendEnv: opts.SendEnv, SetEnv: opts.SetEnv, ForwardAgent: opts.ForwardAgent,
		Spares: opts.SSMSpareChannels, Forward: forwardConfig(opts, log), Logf: log.Logf,
	}
	if identity != "" {
		cfg.Extensions = []sshproxy.Extension{{Name: identityExtension, Value: identity}}
		cfg.Environment = new(adopter).adopt
	}
	return cfg
}
