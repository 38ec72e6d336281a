package e2e

import (
	"time"

	"ssm-ssh/test/lab"
)

// apiFaults are what AWS's API answers, or doesn't.
func apiFaults() []fault {
	fails := func(operation string, f lab.APIFault) lab.FaultSet {
		return lab.FaultSet{API: map[string]lab.APIFault{operation: f}}
	}
	resumeFails := func(f lab.APIFault) func(*rig) { return cutClientsUnder(fails("ResumeSession", f)) }
	return []fault{
		{name: "StartSession throttled twice", strike: with(fails("StartSession", lab.APIFault{Code: "ThrottlingException", Times: 2})), seen: apiErrors(2)},
		{name: "StartSession throttled for longer than ConnectTimeout", full: true, args: []string{"-o", "ConnectTimeout=1"},
			strike: with(fails("StartSession", lab.APIFault{Code: "ThrottlingException", Times: 12})), seen: apiErrors(12)},
		{name: "StartSession throttled for ever", full: true, args: []string{"-o", "SSMQueueTimeout=4", "-o", "ConnectTimeout=60"},
			strike: with(fails("StartSession", lab.APIFault{Code: "ThrottlingException"})), ends: line("start session: ThrottlingException"), within: 25 * time.Second},
		{name: "StartSession without an answer", full: true, args: []string{"-o", "ConnectTimeout=3"},
			strike: with(fails("StartSession", lab.APIFault{Hang: true})), ends: line("start session: "), within: 25 * time.Second},
		{name: "StartSession whose answer is lost",
			strike: with(fails("StartSession", lab.APIFault{LoseAnswer: true})), ends: line("start session: .*; the session that was started all the same is ended")},
		{name: "StartSession whose answer comes too late", args: []string{"-o", "ConnectTimeout=1"}, within: 15 * time.Second,
			strike: with(fails("StartSession", lab.APIFault{LateMillis: 60_000})), ends: line("start session: .*; the session that was started all the same is ended")},

		{name: "ResumeSession throttled three times", at: inUpload, strike: resumeFails(lab.APIFault{Code: "ThrottlingException", Times: 3}), seen: apiErrors(3)},
		{name: "ResumeSession unavailable", full: true, at: inDownload, strike: resumeFails(lab.APIFault{Code: "ServiceUnavailable", Times: 3}), seen: apiErrors(3)},
		{name: "ResumeSession refused once", full: true, at: inDownload, strike: resumeFails(lab.APIFault{Code: "AccessDeniedException", Times: 1}), seen: apiErrors(1)},
		{name: "ResumeSession with expired credentials once", full: true, at: inUpload, strike: resumeFails(lab.APIFault{Code: "ExpiredTokenException", Times: 2}), seen: apiErrors(2)},
		{name: "ResumeSession whose answer is lost", full: true, at: inUpload, strike: resumeFails(lab.APIFault{LoseAnswer: true, Times: 2}), seen: resumed},
		{name: "ResumeSession without an answer once", full: true, at: inDownload, strike: resumeFails(lab.APIFault{Hang: true, Times: 1}), seen: resumed},
		{name: "ResumeSession refused for ever", args: []string{"-o", "SSMResume=2"}, at: inCommand,
			strike: resumeFails(lab.APIFault{Code: "AccessDeniedException"}), ends: line("connection lost: .*AccessDeniedException.*; the caller needs ssm:ResumeSession")},
		{name: "ResumeSession says that the session is gone", at: inUpload,
			strike: cutClientsUnder(lab.FaultSet{EmptyResumeToken: true}), ends: line("connection lost: .*the session has ended")},
		{name: "ResumeSession knows no such session", full: true, at: inCommand,
			strike: resumeFails(lab.APIFault{Code: "DoesNotExistException"}), ends: line("connection lost: .*DoesNotExistException")},

		{name: "token expired on resuming", full: true, at: inDownload,
			strike: all(cutClientsUnder(lab.FaultSet{RefuseToken: true}), forSome(2*time.Second, lab.FaultSet{RefuseToken: true})), seen: resumed},
		{name: "token expired at the start", full: true, args: []string{"-o", "ConnectTimeout=4"}, strike: with(lab.FaultSet{RefuseToken: true}),
			ends: line("open data channel: "), within: 8 * time.Second},
	}
}

func apiErrors(n int64) func(lab.Counts) bool {
	return func(c lab.Counts) bool { return c.APIErrors >= n }
}

// closedByRemote is OpenSSH's text for a peer that hangs up without a word.
const closedByRemote = `^Connection to mi-\w+ closed by remote host.\r\n$`

// sessionFaults are ends of the session by the service.
func sessionFaults() []fault {
	short := lab.Options{Timing: lab.Timing{Idle: 3 * time.Second}}
	return []fault{
		{name: "session ended by the service in mid-upload", at: inUpload, strike: expire, ends: line("connection lost: .*idle")},
		{name: "session ended by the service in mid-download", full: true, at: inDownload, strike: expire, ends: line("connection lost: .*idle")},
		{name: "session of one's own ended by the service in mid-download", full: true, args: []string{"-S", "none"}, at: inDownload, strike: expire,
			ends: `^Connection to mi-\w+ closed by remote host.\r\nssm-ssh: mi-\w+: connection lost: [^\n]*idle[^\n]*\r\n$`},
		{name: "session terminated by somebody in mid-upload", full: true, at: inUpload, strike: terminate, ends: closedByRemote},
		{name: "session terminated by somebody in a silent command", full: true, at: inCommand, strike: terminate, ends: closedByRemote},
		{name: "session terminated by somebody while idle", full: true, at: idle, strike: terminate, fresh: true},
		{name: "session ended by the service while idle", full: true, at: idle, strike: expire, fresh: true},
		{name: "session ended by the service in the handshake", full: true, at: inHandshake, strike: expire,
			opts: lab.Options{RTT: 50 * time.Millisecond, AgentLink: lab.Link{RTT: 50 * time.Millisecond}}, ends: line("open data channel: .*idle")},
		{name: "command longer than the idle time-out", opts: short, args: []string{"-o", "SSMKeepAlive=1"}, at: inCommand,
			strike: func(*rig) {}, silent: 5 * time.Second},
		{name: "command longer than the idle time-out, without keepalives", opts: short, args: []string{"-o", "SSMKeepAlive=0"}, at: inCommand,
			strike: func(*rig) {}, ends: line("connection lost: .*idle session time.*SSMKeepAlive")},
		{name: "session longer than the account allows", full: true, opts: lab.Options{Timing: lab.Timing{MaxDuration: 4 * time.Second}}, at: inCommand,
			strike: func(*rig) {}, ends: line("connection lost: .*maximum session duration")},
	}
}
