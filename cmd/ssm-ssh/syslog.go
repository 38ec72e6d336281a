package main

import (
	"fmt"
	"log/syslog"
	"os"
	"path/filepath"
	"strings"
)

// systemLog is where -y sends the log: syslog(3), by the program's name and number, each line with its level before it
// (OpenSSH's log.c, do_log). Where nobody takes it the log is lost without a word, as by syslog(3).
type systemLog struct {
	facility string
	w        *syslog.Writer
	lost     bool
}

// systemLineLimit is how much of a line syslog is given, as by OpenSSH.
const systemLineLimit = 500

// testOnlySyslog is the address of a socket in the place of the system's.
var testOnlySyslog = ""

// facilities are SyslogFacility's words.
var facilities = map[string]syslog.Priority{
	"DAEMON": syslog.LOG_DAEMON, "USER": syslog.LOG_USER, "AUTH": syslog.LOG_AUTH, "AUTHPRIV": syslog.LOG_AUTHPRIV,
	"LOCAL0": syslog.LOG_LOCAL0, "LOCAL1": syslog.LOG_LOCAL1, "LOCAL2": syslog.LOG_LOCAL2, "LOCAL3": syslog.LOG_LOCAL3,
	"LOCAL4": syslog.LOG_LOCAL4, "LOCAL5": syslog.LOG_LOCAL5, "LOCAL6": syslog.LOG_LOCAL6, "LOCAL7": syslog.LOG_LOCAL7,
}

// write sends the lines of text, of Logf's level. The log is opened by its first line: most calls have none.
func (l *systemLog) write(level int, text string) {
	if l.w == nil && !l.lost {
		network := ""
		if testOnlySyslog != "" {
			network = "unixgram"
		}
		var err error
		l.w, err = syslog.Dial(network, testOnlySyslog, facilities[l.facility], filepath.Base(os.Args[0]))
		l.lost = err != nil
	}
	if l.lost {
		return
	}
	send, prefix := l.w.Info, ""
	switch {
	case level < 0:
		send, prefix = l.w.Err, "error: "
	case level > 0:
		send, prefix = l.w.Debug, fmt.Sprintf("debug%d: ", level)
	}
	for line := range strings.SplitSeq(text, "\n") {
		line = prefix + line
		send(line[:min(len(line), systemLineLimit)]) //nolint:errcheck // as syslog(3): there is nobody to tell
	}
}
