// Package lab is an embedded stand-in for AWS on loopback: the SSM API, the message gateway, the
// agent with one worker per session, and managed nodes that run the system's sshd, so that the
// program can be tried and tested without an account.
//
//	l, err := lab.Start(ctx, lab.Options{Nodes: 3, RTT: 100 * time.Millisecond})
//	defer l.Close()
//	cmd.Env = append(os.Environ(), l.Env()...)
//
// How a session flows:
//
//	client ──hop──► API (TLS, JSON 1.1)  StartSession ──► Node ──starts──► worker
//	client ──hop──► gateway ws ◄──► channel ◄──► gateway ws ◄──hop── worker ──TCP──► sshd
//
// A hop is the delay line: it carries bytes in order, late, and at full throughput. The gateway
// relays messages and invents pause_publication, start_publication and channel_closed. The worker
// is written after the behaviour of the real agent, its slowness included: at most one message of
// 1024 bytes per millisecond, only the oldest unacknowledged message sent again, acknowledgement
// after the local write. Faults are settable while it runs (Faults, or the control endpoint).
//
// Sessions of shells and commands run on a pty of this machine, as the nodes' login user. With
// Options.Encrypt they are encrypted with a data key of the lab's own KMS, which the API answers for.
//
// The package knows nothing of our client: it shares the message codec with it and no state
// machine, and its tests are foreign clients (OpenSSH with the official plugin, the AWS CLI).
//
// Goroutines, each waited for by Close of its owner:
//
//	hopConn pumpIn, pumpOut   hop            socket closed; carry bytes between socket and queue
//	servers (API, gateways)   Lab            listener closed
//	connection handlers       Lab            http.Server's, end with their connection; counted by Lab
//	session idle timer        session        session ended
//	worker run and its parts  Node           session ended, node rebooted, Lab closed; commands end with it
//	sshd's waiter             sshd           process exited
//
// Sources: names such as "port_basic.go" in the comments are files of amazon-ssm-agent 3.3, those
// with "plugin" of session-manager-plugin 1.3; what neither shows of the service between the two
// comes from AWS's documentation and from watching both.
package lab
