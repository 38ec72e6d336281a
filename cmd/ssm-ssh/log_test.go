package main

import (
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ssm-ssh/internal/sshopt"
)

// -y sends the log to syslog, with the facility and the levels that ssh has.
func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	testOnlySyslog = path
	defer func() { testOnlySyslog = "" }()

	log, err := newLogSink(&sshopt.Options{Syslog: true, SyslogFacility: "LOCAL3", LogLevel: sshopt.LogDebug1})
	if err != nil {
		t.Fatal(err)
	}
	log.Logf(0, "one\ntwo")
	log.Logf(-1, "wrong")
	log.Logf(1, "detail")
	log.Logf(2, "too much")
	log.Logf(0, "%s", strings.Repeat("x", 1000))
	for _, want := range []string{"<158>.*: one\n", "<158>.*: two\n", "<155>.*: error: wrong\n", "<159>.*: debug1: detail\n", "<158>.*: x{500}\n"} {
		got := make([]byte, 2048)
		socket.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := socket.Read(got)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _ := regexp.Match(`^`+want+`$`, got[:n]); !ok {
			t.Errorf("got %q, want %s", got[:n], want)
		}
	}
}

// Where nobody takes what is logged, nothing is said.
func TestSyslogWithoutAnybody(t *testing.T) {
	testOnlySyslog = filepath.Join(t.TempDir(), "none")
	defer func() { testOnlySyslog = "" }()
	l := &systemLog{facility: "USER"}
	l.write(0, "lost")
	if !l.lost {
		t.Error("the line went somewhere")
	}
}
