package sshproxy

import (
	"context"
	"errors"
	"fmt"
)

// socksHost in place of a connect host, with port 0, says that the forward speaks SOCKS (mux.c,
// mux_client_forward; readconf.c, parse_forward).
const socksHost = "socks"

// endpointOf reads an endpoint as mux messages have it.
func endpointOf(host string, port uint32) Endpoint {
	if port == muxUnixSocket {
		return Endpoint{Path: host}
	}
	return Endpoint{Host: host, Port: int(port)}
}

// wireEndpoint is endpointOf's reverse.
func wireEndpoint(e Endpoint) (host string, port uint32) {
	if e.Path != "" {
		return e.Path, muxUnixSocket
	}
	return e.Host, uint32(e.Port)
}

// forwardOf reads a forward out of a request.
func forwardOf(m *forwardMessage) Forward {
	fwd := Forward{Kind: ForwardKind(m.Forward), Listen: endpointOf(m.ListenHost, m.ListenPort), Connect: endpointOf(m.ConnectHost, m.ConnectPort)}
	if fwd.Kind == ForwardDynamic || fwd.Kind == ForwardRemote && m.ConnectHost == socksHost && m.ConnectPort == 0 {
		fwd.Connect = Endpoint{}
	}
	return fwd
}

// forwardRequest is forwardOf's reverse.
func forwardRequest(kind muxKind, id uint32, fwd Forward) *forwardMessage {
	m := &forwardMessage{Kind: kind, ID: id, Forward: uint32(fwd.Kind)}
	m.ListenHost, m.ListenPort = wireEndpoint(fwd.Listen)
	m.ConnectHost, m.ConnectPort = wireEndpoint(fwd.Connect)
	if fwd.Connect == (Endpoint{}) {
		m.ConnectHost = socksHost
	}
	return m
}

// handleForward opens or closes a forward and says how that went.
func (s *muxServer) handleForward(ctx context.Context, m *forwardMessage) error {
	fwd := forwardOf(m)
	if m.Kind == muxCloseForward {
		if err := s.master.forwards.Cancel(fwd); err != nil {
			return s.fail(m.ID, reasonForwardNotThere)
		}
		return s.conn.send(&plainMessage{Kind: muxOK, ID: m.ID})
	}
	if !s.master.allowed(ctx, questionForward, s.master.forwards.describe(fwd), s.master.cfg.Host) {
		return s.deny(m.ID)
	}
	port, err := s.master.forwards.Open(fwd)
	if err != nil {
		return s.failForward(m.ID, fwd, err)
	}
	if s.master.cfg.ForwardsEndWithClient {
		s.forwards = append(s.forwards, fwd)
	}
	if fwd.Kind == ForwardRemote && fwd.Listen.Port == 0 && fwd.Listen.Path == "" {
		return s.conn.send(&numberMessage{Kind: muxRemotePort, ID: m.ID, Number: uint32(port)})
	}
	return s.conn.send(&plainMessage{Kind: muxOK, ID: m.ID})
}

// failForward puts the reason in OpenSSH's words; the details are the log's.
func (s *muxServer) failForward(id uint32, fwd Forward, err error) error {
	s.master.cfg.Logf(1, "%s: %v", s.master.forwards.describe(fwd), err)
	var text *TextError
	switch {
	case errors.Is(err, errForwardInvalid):
		return s.fail(id, reasonForwardInvalid)
	case fwd.Kind == ForwardRemote && errors.As(err, &text):
		return s.fail(id, text.Text)
	default:
		return s.fail(id, reasonForwardFailed)
	}
}

// describe names a forward in questions and in the log (mux.c, format_forward).
func (f *Forwarder) describe(fwd Forward) string {
	listen := fwd.Listen
	if listen.Path == "" && listen.Host == "" {
		listen.Host = "LOCALHOST"
		if f.cfg.GatewayPorts && fwd.Kind != ForwardRemote {
			listen.Host = "*"
		}
	}
	switch fwd.Kind {
	case ForwardLocal:
		return fmt.Sprintf("local forward %s -> %s", listen, fwd.Connect)
	case ForwardRemote:
		return fmt.Sprintf("remote forward %s -> %s", listen, fwd.Connect)
	default:
		return fmt.Sprintf("dynamic forward %s -> *", listen)
	}
}

// releaseForwards gives up what the client had asked for, where that ends with it.
func (s *muxServer) releaseForwards() {
	for _, fwd := range s.forwards {
		s.master.forwards.Release(fwd)
	}
}
