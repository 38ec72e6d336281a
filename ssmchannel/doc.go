// Package ssmchannel carries bytes over the data channel of a Session Manager
// session, as a net.Conn. It knows neither SSH nor the AWS SDK: what it needs of
// AWS comes in as functions of [Config].
//
//	conn, err := ssmchannel.Dial(ctx, session, ssmchannel.Config{Sign: sign, Resume: resume})
//
// # Flow
//
// One websocket leads to the service, which relays agent messages to and from
// the agent on the node. Each stream message has a number and is acknowledged by
// a message of its own; numbers go on over a new websocket.
//
//	Write ─▶ waitWindow ─▶ outgoing ─▶ sendLoop ─▶ link ─▶ service ─▶ agent ─▶ port
//	         (window)      (numbers,   acknowledgements first,
//	                        resend)    many frames per flush
//
//	Read ◀─ inbox ◀─ incoming ◀─ recvLoop ◀─ link ◀─ service ◀─ agent ◀─ port
//	        (bounded) (order,     └─▶ acknowledgements ─▶ sendLoop
//	                   duplicates)
//
// outgoing, incoming, sendWindow and rttEstimator are pure: time is a parameter,
// they neither block nor do I/O. A link is one websocket; carry replaces a lost
// one through Config.Resume, without a new handshake.
//
// # Kinds of sessions
//
// A session of AWS-StartSSHSession is one TCP connection, and Conn is all it takes.
// The port-forwarding documents take many: [StartPortMux] makes a net.Conn of each,
// by smux version 1, or one after the other with agents that have none.
//
// Sessions of shells and commands are bytes in both directions, too. They begin
// without a handshake, unless encrypted, when the shell first writes; Dial returns
// then. Resize sends the size of the terminal; Stderr and ExitCode are of commands
// whose document keeps the streams apart. The agent passes text, not bytes: it cuts
// output between characters and spoils what is no UTF-8. Close does not end them,
// since the agent knows no flag for it: type exit, or call TerminateSession.
//
// Encryption is the agent's wish, of shells and commands only. The data key comes
// from Config.GenerateDataKey and is in memory as two AES-GCM ciphers alone; it
// outlives websockets and is never fetched twice.
//
// # Differences from a TCP connection
//
//   - There is no half close: the protocol has no end-of-file towards the agent,
//     and the agent's end is the end of the session.
//   - Close asks the agent to end the session and waits for it, at most twice
//     Config.CloseTimeout. Terminated tells whether it ended. With Config.End it is
//     that which ends the session for sure, before the websocket is closed.
//   - After the end by the peer Read returns what came before, then io.EOF, or a
//     *CloseError with the reason that the service gave.
//   - A connection outlives its websocket: Read and Write just wait while a lost
//     one is replaced. Stats tells that it is so.
//   - A node that is gone while the service is there ends the connection with
//     ErrNodeSilent; a TCP connection would wait for its retransmissions.
//   - Write returns when the bytes are within the window, not when they have
//     left.
//   - A zero-length Write sends nothing; no message may be empty.
//   - The last bytes that the agent had not got across when the session ended
//     cannot be told from an orderly end, unless later ones had arrived.
//
// # Memory
//
// A connection holds at most 9 MiB by default, and 24 MiB while neither Read nor
// Write gets on:
//
//	WindowBytes of unacknowledged messages        4 MiB
//	places of messages, four windows of them      1.5 MiB
//	IncomingBytes for Read, in a ring of the      2 MiB; 16 MiB while Write is
//	next power of two                             blocked, too
//	IncomingBytes before their turn               with those
//	acknowledgements on a stuck websocket         750 KiB
//	buffers                                       150 KiB
//
// An idle one has the buffers and at most 256 KiB of ring.
// A multiplexed session adds 4 MiB of unread data of all its streams, and for each
// stream 32 KiB to be sent and at most 256 KiB of ring.
//
// # Goroutines
//
//	name       started by     ends with             owns
//	run        Dial           the connection        the sequence of links; closes Done
//	recvLoop   serve, by run  its link              link.Read, parsing, incoming
//	sendLoop   serve, by run  its link              link.Write and Flush, the timer
//	keepalive  serve, by run  its link              pings
//	readLoop   StartPortMux   the session's end     smux frames, Conn.Read
//	sendLoop   StartPortMux   the session's end     Conn.Write
//
// PortMux.Close waits for its two.
//
// Close waits for run, which waits for the others. Conn.mu guards the state that
// they share; no I/O is done with it held.
//
// # Waits
//
// Every wait ends by itself, but that of a Read or Write for a peer that is well
// and has nothing to say, or takes nothing; they end as on any net.Conn with
// their deadline, Close, or the end of the connection.
//
//	wait                         bounded by
//	Dial                         its context, HandshakeTimeout
//	link.Read                    a ping with nothing after it: PingInterval and PingTimeout
//	link.Flush                   the same; when the peer sends but does not read: NodeSilence, or
//	                             twice PingInterval, and PingTimeout
//	an acknowledgement           NodeSilence; five minutes while others come
//	an agent that is away        NodeSilence
//	room for received data       the reader's; the link's end
//	a new link                   ResumeFor; pauses of 5 s, calls of Resume and dials of 15 s each
//	sleep of the computer        noticed at the next ping, or with the first byte to be sent
//	Close                        CloseTimeout for acknowledgements; Config.End, or CloseTimeout for the end
//	a stream of a session        its context to open, then as Read and Write; with the session
//
// Config.Resume, Sign and GenerateDataKey must return when their context ends, End by itself.
//
// # Sources
//
// session-manager-plugin 1.3.0.0, xtaci/smux 1.5.15 ("smux") and amazon-ssm-agent 3.3, by file name in the
// comments ("plugin", "agent"); RFC 6298 for the round-trip estimate, RFC 5681
// for the window, RFC 9002 for loss detection. Package agentmsg has the layout of
// the messages.
package ssmchannel
