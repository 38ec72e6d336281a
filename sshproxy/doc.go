// Package sshproxy is an SSH client that shares its connection: it speaks SSH over any net.Conn,
// serves the sessions of other processes as an OpenSSH control master does, and is the client of such
// a master, ours or OpenSSH's. It knows neither AWS nor how its net.Conn comes about.
//
// A connection of one's own:
//
//	client, err := sshproxy.NewClient(ctx, conn, cfg)        // SSH handshake, host key, authentication
//	session, err := client.OpenSession(ctx)
//	err = session.Start(ctx, sshproxy.SessionRequest{Command: "uptime", Stdout: os.Stdout})
//	status, ok := session.Wait()
//
// A shared one, in the process that owns it and in those that use it:
//
//	listener, err := sshproxy.Listen(path)
//	err = sshproxy.NewMaster(client, masterConfig).Serve(ctx, listener)
//
//	mux, err := sshproxy.DialMux(ctx, path)
//	session, err := mux.NewSession(ctx, sshproxy.MuxSessionRequest{Command: "uptime", Stdout: os.Stdout})
//	status, ok := session.Wait()
//
// # Processes and the way of the bytes
//
//	client process                         master process                          node
//	MuxClient ── frames, descriptors ──> muxServer ──> passenger ──> sessionQueue
//	                                                       │               │
//	its terminal, pipes, files <── fdpass.Stream ──────────┴─ Session ── Client ── net.Conn ── sshd
//
// The client hands its standard descriptors over and then only waits: for the exit message, and for
// the end of the control connection, which is the session's. So what it reads and writes goes between
// the master and whatever its descriptors are, and its death is seen at once as the end of the control
// connection. A client is never told that it has started something before the channel is open
// (S_SESSION_OPENED); an end before that means that nothing was run, and it may start over.
//
// # Goroutines
//
//	name                      owner, who waits       ends with                    owns
//	Client: connection's end  Client.Close           the connection               Client.done, Client.err
//	Client: requests          Client.Close           the connection               -
//	Client: channels          Client.Close           the connection               -
//	Client: one a channel of  Client.Close           the channel                  the channel
//	  the node's
//	Client: two watches       Client.Close           the connection               their timers
//	Client: one probe         Client.Close           its answer                   -
//	Client: host keys         Client.Close           the node's proof, the        the files of known hosts
//	                                                 user's answer
//	Client: one an opening    Client.Close           the node's answer            the channel until taken
//	Session: requests         Session.Wait           the channel                  Session.closed
//	Session: stdin            Session.Wait           its end, the channel         the stdin stream
//	Session: typeahead        Session.Wait           as above                     the filter of escapes
//	Session: stdout, stderr   Session.Wait           remote EOF, the channel      their streams
//	Session: one a request    Session.Wait           the node's answer            -
//	  under way
//	Master: accept            Master.Serve           stop, exit, the end          the listener
//	Master: one a client      Master.Serve           the control connection       the connection, what it began
//	Master: one a session     its client's           the session                  the passed streams
//	Master: one a channel     Master.Serve           the node's answer, the       the channel until somebody's
//	  opened or given up                             connection
//	Master: one a further     Master.Serve           that connection              -
//	  connection
//	Master: one that makes    Master.Serve           its success, 30 s            the connection until then
//	  the next of them
//	Forwarder: one an address Forwarder.Close        cancel, Forwarder.Stop       its listener
//	Forwarder: a connection,  Forwarder.Close        the end of both sides        the local connection
//	  one each way
//	fdpass.Poller             Master.Serve           Poller.Close                 -
//
// A master has one connection to its server, and more where Config.Another gives them and clients wait
// for a session: docs/decisions/009.
//
// A Client in proxy mode (MuxClient.Proxied) has the same ones; its connection's end is also its reader.
//
// Session channels are opened by the queue, some of them ahead of need: with a channel that is open
// already, a command costs one round trip (env, pty-req and exec leave together), one that reads its
// stdin two, since sshd opens its window only when the command runs.
//
// The lock order is Master.mu, muxServer.mu, passenger.mu; nothing that can block on a peer is done
// under any of them.
//
// # Sources
//
// RFC 4251 to 4254; RFC 8308; of OpenSSH PROTOCOL, PROTOCOL.mux, PROTOCOL.agent, mux.c, channels.c, clientloop.c,
// sshconnect.c, sshconnect2.c, misc.c (unix_listener), hostfile.c, ssh_config(5). Where 9.2 and 10.5
// differ the place says so.
package sshproxy
