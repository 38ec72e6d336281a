package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"ssm-ssh/internal/report"
	"ssm-ssh/internal/sshopt"
)

// logSink is the voice of the program. Nothing but payload goes to stdout; everything said goes to
// stderr, or to the file of -E, one line at a time, each ended by CR LF as OpenSSH ends them (its
// log.c), so that a line stays whole on a terminal in raw mode. Lines for debugging begin with
// "debugN: ": Ansible passes over that shape when it looks for prompts.
type logSink struct {
	mu     sync.Mutex
	w      io.Writer
	syslog *systemLog // in place of w (-y)
	level  sshopt.LogLevel
}

// newLogSink opens the sink that the options ask for. A log file is appended to and stays open for
// the life of the process.
func newLogSink(opts *sshopt.Options) (*logSink, error) {
	s := &logSink{w: os.Stderr, level: opts.LogLevel}
	if opts.Syslog {
		s.syslog = &systemLog{facility: opts.SyslogFacility}
	}
	if opts.LogFile == "" {
		return s, nil
	}
	f, err := os.OpenFile(opts.LogFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		text := fmt.Sprintf("Couldn't open logfile %s: %s", opts.LogFile, reason(err))
		return s, &sshopt.Error{Text: text, Code: exitFailed}
	}
	s.w = f
	return s, nil
}

// Logf is the sink as the packages see it. A line end within stays as it is, as in OpenSSH's texts of a
// fingerprint: it is no line of the log by itself.
func (s *logSink) Logf(level int, format string, args ...any) {
	if !s.shows(level) {
		return
	}
	prefix := ""
	if level > 0 {
		prefix = fmt.Sprintf("debug%d: ", level)
	}
	text := strings.TrimRight(fmt.Sprintf(format, args...), "\r\n")
	if s.syslog != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.syslog.write(level, text)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	io.WriteString(s.w, prefix+text+"\r\n") //nolint:errcheck // a closed stderr has nobody to tell
}

// lines logs each line of a text by itself.
func (s *logSink) lines(level int, text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		s.Logf(level, "%s", strings.TrimRight(line, "\r"))
	}
}

// change makes the log say more or less and returns its new level.
func (s *logSink) change(more bool) sshopt.LogLevel {
	s.mu.Lock()
	defer s.mu.Unlock()
	if more {
		s.level = min(s.level+1, sshopt.LogDebug3)
	} else {
		s.level = max(s.level-1, sshopt.LogQuiet)
	}
	return s.level
}

// shows reports whether lines of a level are written.
func (s *logSink) shows(level int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.level.Shows(level)
}

// notice says what came up while the options were read.
func (s *logSink) notice(n sshopt.Notice) {
	if n.Raw {
		fmt.Fprintln(os.Stderr, n.Text)
		return
	}
	s.lines(n.Level, n.Text)
}

// say says a failure and returns its status. Usage texts go to stderr whatever log was asked for.
func (s *logSink) say(f failure) int {
	switch {
	case f.Text == "":
	case f.Raw:
		fmt.Fprintln(os.Stderr, f.Text)
	case f.Quit:
		fmt.Fprint(os.Stderr, strings.ReplaceAll(f.Text, "\n", "\r\n")+"\r\n")
	default:
		s.lines(-1, f.Text)
	}
	return f.Code
}

var _ report.Logf = (*logSink)(nil).Logf
