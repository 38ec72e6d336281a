package sshopt

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// testEnvironment is one in which nothing of the machine shows through.
func testEnvironment(dir string) Environment {
	variables := map[string]string{"VALUE": "/value", "DISPLAY": ":0", "SSH_AUTH_SOCK": "/agent", "SHELL": "/bin/sh"}
	return Environment{
		Args0: "ssm-ssh", Home: dir, LocalUser: "me", UID: os.Getuid(), Hostname: "box.example.com",
		Getenv:       func(name string) (string, bool) { v, ok := variables[name]; return v, ok },
		HomeOf:       func(name string) (string, bool) { return "/home/" + name, name == "you" },
		SystemConfig: dir + "/system",
	}
}

func parse(t *testing.T, env Environment, args ...string) *Options {
	t.Helper()
	o, err := Parse(args, env)
	if err != nil {
		t.Fatalf("Parse(%q): %v", args, err)
	}
	return o
}

func TestParseCommandLine(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want func(o *Options) bool
	}{
		{"command joined", []string{"h", "echo", "a   b", "$HOME"}, func(o *Options) bool { return o.Command == "echo a   b $HOME" && o.HasCommand }},
		{"empty command is a shell", []string{"h", ""}, func(o *Options) bool { return !o.HasCommand && o.RequestTTY == RequestTTYAuto }},
		{"empty words leave spaces", []string{"h", "", ""}, func(o *Options) bool { return o.Command == " " && o.HasCommand }},
		{"flags after the host", []string{"h", "-v", "-T", "cmd", "-x"}, func(o *Options) bool { return o.Verbose == 1 && o.RequestTTY == RequestTTYNo && o.Command == "cmd -x" }},
		{"dashes before the host end flags", []string{"--", "h", "-v"}, func(o *Options) bool { return o.Verbose == 0 && o.Command == "-v" }},
		{"dashes after the host", []string{"h", "--", "-x"}, func(o *Options) bool { return o.Command == "-x" }},
		{"joined flags", []string{"-vvnNp2222", "h"}, func(o *Options) bool {
			return o.Verbose == 2 && o.LogLevel == LogDebug2 && o.StdinNull && o.SessionType == SessionNone && o.Port == 2222
		}},
		{"four times verbose", []string{"-vvvv", "h"}, func(o *Options) bool { return o.Verbose == 3 && o.LogLevel == LogDebug3 }},
		{"verbose after quiet", []string{"-qv", "h"}, func(o *Options) bool { return o.LogLevel == LogDebug1 }},
		{"tag", []string{"-P", "t", "h"}, func(o *Options) bool { return o.Tag == "t" }},
		{"destination kept", []string{"-l", "a", "ssh://b@H:2222/"}, func(o *Options) bool {
			return o.Destination == "ssh://b@H:2222/" && o.OriginalHost == "H" && o.Host == "h" && o.User == "a" && o.Port == 2222
		}},
		{"last @", []string{"a@b@c"}, func(o *Options) bool { return o.User == "a@b" && o.Host == "c" }},
		{"local user", []string{"h"}, func(o *Options) bool { return o.User == "me" && o.Port == 22 && !o.IsSet("user") && !o.IsSet("Port") }},
		{"what is set", []string{"-oPort=22", "-C", "h"}, func(o *Options) bool {
			return o.IsSet("PORT") && o.IsSet("compression") && !o.IsSet("controlpath") && !o.IsSet("nonsense")
		}},
		{"stdio forward", []string{"-W", "[::1]:80", "h"}, func(o *Options) bool {
			return *o.StdioForward == StdioForward{Host: "::1", Port: 80} && o.ExitOnForwardFailure && o.ClearAllForwardings && !o.TTY
		}},
		{"stdio forward to a socket", []string{"-W", "/a b", "h"}, func(o *Options) bool { return o.StdioForward.Path == "/a b" }},
		{"mux command", []string{"-O", "check", "-S", "/x", "h"}, func(o *Options) bool { return o.Action == ActionMuxCommand && o.MuxCommand == MuxCheck }},
		{"version at once", []string{"-V", "-Z"}, func(o *Options) bool { return o.Action == ActionVersion }},
		{"query", []string{"-Qmac"}, func(o *Options) bool { return o.Action == ActionQuery && strings.HasPrefix(o.QueryText(), "hmac-") }},
		{"dump before mux command", []string{"-O", "check", "-G", "h"}, func(o *Options) bool { return o.Action == ActionDump }},
		{"log file", []string{"-E", "/log", "h"}, func(o *Options) bool { return o.LogFile == "/log" }},
		{"forwards", []string{"-L", ":1:a:2", "-R", "3", "-D", "localhost:4", "-L", "/x:/y", "h"}, func(o *Options) bool {
			return reflect.DeepEqual(o.LocalForward, []Forward{{BindAddr: "*", BindPort: 1, Host: "a", HostPort: 2}, {BindPath: "/x", Path: "/y"}}) &&
				o.RemoteForward[0] == Forward{BindPort: 3} && o.DynamicForward[0] == Forward{BindAddr: "localhost", BindPort: 4}
		}},
		{"control persist", []string{"-oControlPersist=1h30m", "h"}, func(o *Options) bool { return o.ControlPersist == ControlPersist{Set: true, Timeout: 90 * time.Minute} }},
		{"control persist 0", []string{"-oControlPersist=0", "h"}, func(o *Options) bool { return o.ControlPersist == ControlPersist{Set: true, Forever: true} }},
		{"control persist no", []string{"-oControlPersist=no", "h"}, func(o *Options) bool {
			return o.ControlPersist == ControlPersist{} && o.IsSet("controlpersist")
		}},
		{"fraction of a second", []string{"-oConnectTimeout=1.5", "h"}, func(o *Options) bool { return o.ConnectTimeout == 1500*time.Millisecond }},
		{"proxy command expanded", []string{"-p", "7", "-oProxyCommand=nc %h %p %r %%", "h"}, func(o *Options) bool { return o.ProxyCommand == "nc h 7 me %" }},
		{"jump becomes a command", []string{"-v", "-J", "a,u@b:33", "h"}, func(o *Options) bool {
			return o.ProxyCommand == "ssm-ssh -l u -p 33 -J a -v -W '[h]:22' b" && len(o.ProxyJump) == 2 && o.ProxyJump[1] == Jump{"u", "b", 33}
		}},
		{"control path", []string{"-oControlPath=~/%C", "-oPort=7", "u@h"}, func(o *Options) bool {
			// printf box.example.comh7u | sha1sum
			return strings.HasSuffix(o.ControlPath, "/57bea0b653e0f6203fd14e2a400dad0074ada132")
		}},
		{"agent from the environment", []string{"h"}, func(o *Options) bool { return o.AgentSocket == "/agent" }},
		{"no agent", []string{"-oIdentityAgent=none", "h"}, func(o *Options) bool { return o.AgentSocket == "" }},
		{"agent in a variable", []string{"-oIdentityAgent=$VALUE", "h"}, func(o *Options) bool { return o.AgentSocket == "/value" }},
		{"agent in a file", []string{"-oIdentityAgent=~you/a", "h"}, func(o *Options) bool { return o.AgentSocket == "/home/you/a" }},
		{"no identities", []string{"-oIdentityFile=none", "h"}, func(o *Options) bool { return len(o.IdentityFile) == 0 }},
		{"identities", []string{"-oIdentityFile=~/%h", "h"}, func(o *Options) bool {
			return len(o.IdentityFile) == 1 && strings.HasSuffix(o.IdentityFile[0].Path, "/h") && o.IdentityFile[0].Explicit
		}},
		{"default identities", []string{"h"}, func(o *Options) bool { return len(o.IdentityFile) == 7 && !o.IdentityFile[0].Explicit }},
		{"own keywords", []string{"-oSSMTarget=mi-%h", "-oSSMKeepAlive=no", "-oSSMResume=yes", "-ossmmultiplex no", "-oSSMPayloadBytes=1400", "-oSSMAnswerAhead=no", "h"}, func(o *Options) bool {
			return o.SSMTarget == "mi-h" && o.SSMKeepAlive == 0 && o.SSMResume == 15*time.Minute && !o.SSMMultiplex && o.SSMPayloadBytes == 1400 && !o.SSMAnswerAhead
		}},
		{"own keywords at their bounds", []string{"-oSSMPayloadBytes=1536", "-oSSMWindowBytes=65536", "-oSSMPingInterval=1m", "-oSSMPingInterval=30", "-oSSMResume=2h", "h"}, func(o *Options) bool {
			return o.SSMPayloadBytes == 1536 && o.SSMWindowBytes == 64<<10 && o.SSMPingInterval == time.Minute && o.SSMResume == 2*time.Hour
		}},
		{"own defaults", []string{"h"}, func(o *Options) bool {
			return o.SSMTarget == "" && o.SSMKeepAlive == 45*time.Second && o.SSMResume == 15*time.Minute && o.SSMMultiplex && o.SSMAnswerAhead && o.SSMSpareChannels == 2
		}},
		{"tokens of newer releases", []string{"-oSetEnv=A=%j-${VALUE}", "-oLocalCommand=%T", "-oPermitLocalCommand=yes", "-J", "x", "h"}, func(o *Options) bool {
			return o.SetEnv[0] == "A=x-/value" && o.LocalCommand == "NONE"
		}},
		{"names dropped that the library lacks", []string{"-oCiphers=aes256-cbc,aes256-ctr", "-oMACs=umac-64@openssh.com,hmac-sha2-256", "h"}, func(o *Options) bool {
			return reflect.DeepEqual(o.Ciphers, []string{"aes256-ctr"}) && reflect.DeepEqual(o.MACs, []string{"hmac-sha2-256"})
		}},
	}
	env := testEnvironment(t.TempDir())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if o := parse(t, env, tt.args...); !tt.want(o) {
				t.Errorf("Parse(%q) = %+v", tt.args, o)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		name string
		args []string
		text string
		raw  bool
	}{
		{"Ansible's probe", []string{"-o", "ControlPersist"}, `command-line line 0: no argument after keyword "controlpersist"`, false},
		{"tunnel", []string{"-oTunnel=yes", "h"}, "Tunnel: tun devices are not supported; set it to no", false},
		{"host-based", []string{"-oHostbasedAuthentication=yes", "h"}, "HostbasedAuthentication: host-based authentication is not supported; set it to no", false},
		{"nothing left", []string{"-oCiphers=aes256-cbc", "h"}, "Ciphers: this program can do none of 'aes256-cbc'; see -Q Ciphers", false},
		{"canonical names", []string{"-oCanonicalizeHostname=yes", "-oCanonicalDomains=d", "h"}, "CanonicalizeHostname: not supported here; set it to no", false},
		{"no control path", []string{"-O", "check", "h"}, `No ControlPath specified for "-O" command`, false},
		{"refused", []string{`-oRefuseConnection="not that one"`, "h"}, "command-line line 0: RefuseConnection: not that one", false},
		{"newer keywords' faults", []string{"-oObscureKeystrokeTiming=x", "h"}, `command-line line 0: unsupported argument "x"`, false},
		{"keystroke interval", []string{"-oObscureKeystrokeTiming=interval:0", "h"}, "command-line line 0: value out of range.", false},
		{"channel timeout", []string{"-oChannelTimeout=x", "h"}, "command-line line 0: invalid channel timeout x", false},
		{"weak crypto", []string{"-oWarnWeakCrypto=x", "h"}, `command-line line 0: unsupported option "x".`, false},
		{"own keyword's time", []string{"-oSSMKeepAlive=x", "h"}, "command-line line 0: invalid time value.", false},
		{"payload that AWS may refuse", []string{"-oSSMPayloadBytes=1537", "h"}, "command-line line 0: SSMPayloadBytes must be 1024 to 1536.", false},
		{"payload of nothing", []string{"-oSSMPayloadBytes=0", "h"}, "command-line line 0: SSMPayloadBytes must be 1024 to 1536.", false},
		{"window without bound", []string{"-oSSMWindowBytes=8388609", "h"}, "command-line line 0: SSMWindowBytes must be 65536 to 8388608.", false},
		{"window that is none", []string{"-oSSMWindowBytes=x", "h"}, "command-line line 0: integer value invalid.", false},
		{"pings too seldom", []string{"-oSSMPingInterval=61", "h"}, "command-line line 0: SSMPingInterval must be 5 seconds to 1 minute.", false},
		{"pings all the time", []string{"-oSSMPingInterval=0", "h"}, "command-line line 0: SSMPingInterval must be 5 seconds to 1 minute.", false},
		{"pings never", []string{"-oSSMPingInterval=no", "h"}, "command-line line 0: invalid time value.", false},
		{"jump into a shell", []string{"-J", "a;b", "h"}, "Invalid -J argument", false},
		{"terminal controls", []string{"-o", "a\x1b[31m\\=1", "h"}, `command-line: line 0: Bad configuration option: a\033[31m\\`, false},
		{"user from a file, expanded", []string{"-F", "USER", "h"}, textBadUser, false},
		{"raw", []string{"-p", "0", "h"}, "Bad port '0'", true},
	}
	dir := t.TempDir()
	env := testEnvironment(dir)
	file := write(t, dir, "user", "User a%h;\n")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.args {
				tt.args[i] = strings.Replace(tt.args[i], "USER", file, 1)
			}
			o, err := Parse(tt.args, env)
			var failure *Error
			if !errors.As(err, &failure) || o == nil {
				t.Fatalf("Parse(%q) = %v, %v", tt.args, o, err)
			}
			if want := (Error{Text: tt.text, Code: 255, Raw: tt.raw}); *failure != want {
				t.Errorf("Parse(%q): %+v, want %+v", tt.args, *failure, want)
			}
			if strings.Contains(failure.Text, "Usage:") {
				t.Error("Ansible would take that for an ssh without ControlPersist")
			}
		})
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	env := testEnvironment(dir)
	env.OwnConfig = write(t, dir, "own", "Port 1\nSSMRegion own\n")
	write(t, dir, ".ssh/config", "Port 2\nUser user\nSSMRegion user\nInclude sub\n")
	write(t, dir, ".ssh/sub", "BindAddress sub\n")
	write(t, dir, "system", "Port 3\nUser system\nBindInterface system\nInclude more\nIdentityFile /s\n")
	write(t, dir, "more", "HostKeyAlias more\n")
	alone := write(t, dir, "alone", "BindAddress alone\n")

	o := parse(t, env, "h")
	if o.Port != 1 || o.SSMRegion != "own" || o.User != "user" || o.BindAddress != "sub" || o.BindInterface != "system" || o.HostKeyAlias != "more" {
		t.Errorf("own, user, system: %+v", o)
	}
	if len(o.IdentityFile) != 1 || o.IdentityFile[0].Explicit {
		t.Errorf("a key of the system's file isn't the user's word: %+v", o.IdentityFile)
	}
	for _, file := range []string{"none", "NONE", alone} {
		o := parse(t, env, "-F", file, "h")
		if o.Port != 22 || o.User != "me" || o.SSMRegion != "" || o.ConfigFile != file || (o.BindAddress == "alone") != (file == alone) {
			t.Errorf("-F %s: %+v", file, o)
		}
	}
	if err := os.Chmod(env.OwnConfig, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse([]string{"h"}, env); err == nil || err.Error() != "Bad owner or permissions on "+env.OwnConfig {
		t.Errorf("a file that all may write: %v", err)
	}
	parse(t, env, "-F", env.OwnConfig, "h") // not checked there
	env.OwnConfig = dir + "/missing"
	parse(t, env, "h")
	env.OwnConfigNamed = true
	if _, err := Parse([]string{"h"}, env); err == nil || err.Error() != "Can't open user config file "+env.OwnConfig+": No such file or directory" {
		t.Errorf("a file that the user named: %v", err)
	}
}

func TestIncludePermissions(t *testing.T) {
	dir := t.TempDir()
	env := testEnvironment(dir)
	write(t, dir, ".ssh/config", "Include ~/loose\n")
	loose := write(t, dir, "loose", "Port 1\n")
	if err := os.Chmod(loose, 0o620); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse([]string{"h"}, env); err == nil || err.Error() != "Bad owner or permissions on "+loose {
		t.Errorf("got %v", err)
	}
}

// TestNewerMatch has what 9.2 can't be asked for.
func TestNewerMatch(t *testing.T) {
	tests := []struct {
		name  string
		match string
		args  []string
		want  bool
	}{
		{"tagged", "tagged t*", []string{"-P", "tag", "h"}, true},
		{"not tagged", `tagged ""`, []string{"h"}, true},
		{"another tag", "tagged x", []string{"-P", "tag", "h"}, false},
		{"command", `command "up*"`, []string{"h", "uptime", "-p"}, true},
		{"no command", `command ""`, []string{"h"}, true},
		{"version", "version OpenSSH_9.*", []string{"h"}, true},
		{"session", "sessiontype exec", []string{"h", "c"}, true},
		{"shell", "sessiontype shell", []string{"h"}, true},
		{"subsystem", "sessiontype subsystem", []string{"-s", "h", "sftp"}, true},
		{"no session", "sessiontype none", []string{"-N", "h"}, true},
		{"network", "localnetwork 10.0.0.0/8,fd00::/8", []string{"h"}, true},
		{"other network", "!localnetwork 192.168.0.0/16", []string{"h"}, true},
		{"exec", `exec "test %j = jump"`, []string{"-J", "jump", "h"}, true},
		{"exec not run in vain", `host x exec "exit 99"`, []string{"h"}, false},
		{"with equals", "tagged=tag user=me", []string{"-P", "tag", "h"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			env := testEnvironment(dir)
			env.Addresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.1.2.3")}, nil }
			write(t, dir, ".ssh/config", "Match "+tt.match+"\n BindAddress hit\n")
			if o := parse(t, env, tt.args...); (o.BindAddress == "hit") != tt.want {
				t.Errorf("Match %s with %q: applies %v", tt.match, tt.args, !tt.want)
			}
		})
	}
}

func TestCanonicalize(t *testing.T) {
	tests := []struct {
		name   string
		config string
		host   string
		want   string
	}{
		{"first domain that knows it", "CanonicalDomains a.example b.example\n", "web", "web.b.example"},
		{"fallback", "CanonicalDomains a.example\n", "nosuch", "nosuch"},
		{"enough dots", "CanonicalDomains b.example\n", "web.x.y", "web.x.y"},
		{"full name", "", "web.b.example.", "web.b.example"},
		{"alias", "CanonicalDomains b.example\nCanonicalizePermittedCNAMEs *.b.example:*.c.example\n", "www", "real.c.example"},
		{"alias not permitted", "CanonicalDomains b.example\n", "www", "www.b.example"},
		{"behind a proxy", "CanonicalDomains b.example\nProxyCommand x\n", "web", "web"},
		{"target", "CanonicalDomains b.example\n", "i-0123abcd", "i-0123abcd"},
		{"address", "CanonicalDomains b.example\n", "127.1", "127.0.0.1"},
		{"second pass", "CanonicalDomains b.example\nHost web.b.example\n HostKeyAlias k\n", "web", "web.b.example"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			env := testEnvironment(dir)
			names := map[string]string{"web.b.example.": "web.b.example.", "www.b.example.": "REAL.c.example.", "i-0123abcd.b.example.": "x"}
			env.Resolve = func(name string) (string, bool) { cname, ok := names[name]; return cname, ok }
			env.IsTarget = func(host string) bool { return strings.HasPrefix(host, "i-") }
			write(t, dir, ".ssh/config", "CanonicalizeHostname yes\n"+tt.config)
			o := parse(t, env, tt.host)
			if o.Host != tt.want {
				t.Errorf("%s became %s, want %s", tt.host, o.Host, tt.want)
			}
			if (o.HostKeyAlias == "k") != (tt.name == "second pass") {
				t.Errorf("HostKeyAlias is %q", o.HostKeyAlias)
			}
		})
	}
}

func TestImplicitMux(t *testing.T) {
	env := testEnvironment(t.TempDir())
	env.IsTarget = func(host string) bool { return host == "i-0123abcd" }
	if o := parse(t, env, "-O", "check", "i-0123abcd"); o.Action != ActionMuxCommand {
		t.Errorf("action %d", o.Action)
	}
	if _, err := Parse([]string{"-oSSMMultiplex=no", "-O", "check", "i-0123abcd"}, env); err == nil {
		t.Error("-O without any control path was taken")
	}
}

func TestNotices(t *testing.T) {
	env := testEnvironment(t.TempDir())
	tests := []struct {
		name string
		args []string
		want []Notice
	}{
		{"missing key", []string{"-q", "-i", "~/none", "h", "c"}, []Notice{{Text: "Warning: Identity file " + env.Home + "/none not accessible: No such file or directory.", Raw: true}}},
		{"no terminal", []string{"h"}, []Notice{{Text: textNoTTY}}},
		{"no terminal, quiet", []string{"-q", "h"}, nil},
		{"obsolete", []string{"-oKerberosAuthentication=no", "h", "c"}, []Notice{{Text: `command-line line 0: Unsupported option "kerberosauthentication"`, Level: -1}}},
		{"X11", []string{"-X", "h", "c"}, []Notice{{Text: "X11 forwarding request failed on channel 0"}}},
		{"X11 without a session", []string{"-XN", "h"}, nil},
		{"host keys in the DNS", []string{"-oVerifyHostKeyDNS=yes", "h", "c"}, []Notice{{Text: "VerifyHostKeyDNS: not supported; host keys are checked as if it were no"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if o := parse(t, env, tt.args...); !reflect.DeepEqual(o.Notices, tt.want) {
				t.Errorf("got %+v, want %+v", o.Notices, tt.want)
			}
		})
	}
}

func TestTTY(t *testing.T) {
	tests := []struct {
		name     string
		args     []string
		terminal bool
		want     bool
	}{
		{"shell", []string{"h"}, true, true},
		{"shell without a terminal", []string{"h"}, false, false},
		{"command", []string{"h", "c"}, true, false},
		{"asked for", []string{"-t", "h", "c"}, true, true},
		{"forced", []string{"-tt", "h", "c"}, false, true},
		{"stdin closed", []string{"-n", "h"}, true, false},
		{"no session", []string{"-N", "h"}, true, false},
		{"stdio forward", []string{"-W", "a:1", "h"}, true, false},
		{"refused", []string{"-T", "h"}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := testEnvironment(t.TempDir())
			env.StdinIsTerminal = tt.terminal
			if o := parse(t, env, tt.args...); o.TTY != tt.want {
				t.Errorf("TTY is %v", o.TTY)
			}
		})
	}
}

func TestOptionsThroughJSON(t *testing.T) {
	env := testEnvironment(t.TempDir())
	o := parse(t, env, withAnsible([]string{"-L", "1:a:2", "-W", "x:1", "-J", "a", "-i", "/"}, "h", "c")...)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var back Options
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*o, back) {
		t.Errorf("got\n%+v, want\n%+v", back, *o)
	}
	if !back.IsSet("controlpath") {
		t.Error("what is set is forgotten")
	}
}

func TestKeywordsAreSorted(t *testing.T) {
	for id := range keywords {
		kw := lookup(keywords[id].name)
		if kw.id != keywordID(id) {
			t.Errorf("%s isn't found: the table isn't sorted", keywords[id].name)
		}
		if kw.states != nil && reflect.ValueOf(kw.parse).Pointer() != reflect.ValueOf(parseState).Pointer() {
			t.Errorf("%s has words that nobody reads", kw.name)
		}
	}
	for _, a := range aliases {
		if kw := lookup(a.name); kw.id != a.id {
			t.Errorf("alias %s is hidden by a keyword", a.name)
		}
	}
	if len(KeywordSet{})*64 < int(numKeywords) {
		t.Error("KeywordSet is too small")
	}
}

// TestAlgorithms holds our lists to what the SSH library can do.
func TestAlgorithms(t *testing.T) {
	good, weak := ssh.SupportedAlgorithms(), ssh.InsecureAlgorithms()
	const libssh = "curve25519-sha256@libssh.org" // another name that the library adds by itself
	tests := []struct {
		name       string
		family     *family
		good, weak []string
	}{
		{"ciphers", &algCiphers, good.Ciphers, weak.Ciphers},
		{"MACs", &algMACs, good.MACs, weak.MACs},
		{"key exchanges", &algKex, append(good.KeyExchanges, libssh), weak.KeyExchanges},
		// Those of security keys the library verifies without naming them.
		{"keys", &algKeys, append(good.HostKeys, ssh.CertAlgoSKED25519v01, ssh.CertAlgoSKECDSA256v01, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256), weak.HostKeys},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range tt.family.defaults {
				if !contains(tt.good, name) {
					t.Errorf("%s is offered, but the library lacks it or calls it weak", name)
				}
			}
			for _, name := range tt.family.extra {
				if !contains(tt.weak, name) {
					t.Errorf("%s is no weak algorithm of the library", name)
				}
			}
			for _, name := range tt.good {
				if !contains(tt.family.defaults, name) {
					t.Errorf("%s is left out", name)
				}
			}
			for _, name := range append(tt.good, tt.weak...) {
				if !contains(tt.family.known, name) && !strings.HasPrefix(name, "arcfour") {
					t.Errorf("%s isn't known", name)
				}
			}
		})
	}
}

func TestQuery(t *testing.T) {
	for word := range strings.SplitSeq(queries+"\nCiphers\nMACs\nKexAlgorithms\nPubkeyAcceptedAlgorithms\nHostKeyAlgorithms\nHostbasedAcceptedAlgorithms\nCASignatureAlgorithms\nhelp", "\n") {
		text, ok := queryText(word)
		if !ok || text == "" || strings.Contains(text, "\n\n") {
			t.Errorf("-Q %s: %q", word, text)
		}
	}
	if text, _ := queryText("compression"); text != "none" {
		t.Errorf("compression: %q", text)
	}
}

func TestParseTime(t *testing.T) {
	tests := []struct {
		name string
		text string
		want time.Duration
		ok   bool
	}{
		{"seconds", "90", 90 * time.Second, true},
		{"units", "1w2d3h4m5s", (7*24+2*24+3)*time.Hour + 4*time.Minute + 5*time.Second, true},
		{"capitals", "1H", time.Hour, true},
		{"fraction", "0.25s", 250 * time.Millisecond, true},
		{"largest", "2147483647", 2147483647 * time.Second, true},
		{"too large", "2147483648", 0, false},
		{"too large by its unit", "3551w", 0, false},
		{"too large in sum", "2147483647s1s", 0, false},
		{"empty", "", 0, false},
		{"negative", "-1", 0, false},
		{"unit alone", "m", 0, false},
		{"unknown unit", "1y", 0, false},
		{"fraction of an hour", "1.5h", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := parseTime(tt.text); ok != tt.ok || ok && got != tt.want {
				t.Errorf("parseTime(%q) = %v, %v", tt.text, got, ok)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	dir := b.TempDir()
	env := testEnvironment(dir)
	write(b, dir, ".ssh/config", strings.Repeat("Host web-* db-?\n  User deploy\n  IdentityFile ~/.ssh/deploy\n  ServerAliveInterval 30\n\n", 20)+
		"Host *\n  ControlMaster auto\n  ControlPath ~/.ssh/cm-%C\n")
	write(b, dir, "system", "# comment\nInclude "+dir+"/none/*.conf\nHost *\n  SendEnv LANG LC_*\n  HashKnownHosts yes\n  GSSAPIAuthentication yes\n")
	args := withAnsible([]string{"-tt"}, "127.0.0.1", "/bin/sh -c 'echo ~root && sleep 0'")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(args, env); err != nil {
			b.Fatal(err)
		}
	}
}
