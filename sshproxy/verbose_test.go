package sshproxy

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// The lines of ssh -v that people and tools look for, in its order.
func TestVerboseLines(t *testing.T) {
	n := startNode(t, nodeOptions{})
	var log logBook
	cfg := n.clientConfig(&log)
	cfg.Verbose, cfg.KexAlgorithms = true, []string{kexLibSSH}
	client := n.connect(t, cfg)
	if !strings.Contains(log.text(), `Authenticated to node (via proxy) using "publickey".`) {
		t.Errorf("no word of the authentication in\n%s", log.text())
	}
	if _, _, status, _ := run(t, client, SessionRequest{Command: "exit 3", Env: []string{"LC_X=y"}}); status != 3 {
		t.Errorf("status %d", status)
	}
	rest := log.debugText()
	for _, want := range []string{
		"Local version string SSH-2.0-", "Server host key: ", "Remote protocol version 2.0, remote software version OpenSSH_",
		"kex: algorithm: " + kexLibSSH, "kex: host key algorithm: ", "kex: server->client cipher: ", "kex: client->server cipher: ",
		"Sending environment.", `channel 0: setting env LC_X = "y"`, "Sending command: exit 3",
		"client_input_channel_req: channel 0 rtype exit-status reply 0",
	} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Errorf("no %q, or out of place, in\n%s", want, log.debugText())
			continue
		}
		rest = after
	}
}

func TestVerboseIsForVerbose(t *testing.T) {
	n := startNode(t, nodeOptions{})
	var log logBook
	n.connect(t, n.clientConfig(&log))
	if strings.Contains(log.text(), "Authenticated to") {
		t.Errorf("said at INFO:\n%s", log.text())
	}
}

// Every key exchange that the library knows, alone: also the name that it doesn't list.
func TestKexAlgorithmsAreTaken(t *testing.T) {
	known, weak := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	for _, name := range append(append(known.KeyExchanges, kexLibSSH), weak.KeyExchanges...) {
		cfg := Config{KexAlgorithms: []string{name}}
		if out, err := cfg.transportConfig(); err != nil || len(out.KeyExchanges) != 1 {
			t.Errorf("%s: %v, %v", name, out.KeyExchanges, err)
		}
	}
}
