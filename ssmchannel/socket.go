package ssmchannel

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"syscall"
)

// socketFinder learns which connection a request goes over: the body of an upgrade hides it.
type socketFinder struct{ conn net.Conn }

// trace returns the context for the request.
func (f *socketFinder) trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { f.conn = info.Conn },
	})
}

// socket returns the socket below the connection, nil when it isn't to be had.
func (f *socketFinder) socket() syscall.RawConn {
	conn := f.conn
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if below, ok := conn.(syscall.Conn); ok {
		if socket, err := below.SyscallConn(); err == nil {
			return socket
		}
	}
	return nil
}
