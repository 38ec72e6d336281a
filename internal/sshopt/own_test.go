package sshopt

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// ownSamples has a value for each of this program's own keywords that isn't its default.
var ownSamples = map[keywordID]string{
	kwSSMAnswerAhead: "no", kwSSMDocument: "Doc", kwSSMEndpoint: "https://e", kwSSMKeepAlive: "10", kwSSMMultiplex: "no",
	kwSSMPayloadBytes: "1400", kwSSMPingInterval: "20", kwSSMPort: "2222", kwSSMProfile: "p", kwSSMQueueTimeout: "30",
	kwSSMRegion: "eu-west-1", kwSSMResume: "60", kwSSMSendSignals: "yes", kwSSMSpareChannels: "1", kwSSMTarget: "mi-1", kwSSMWait: "90", kwSSMWindowBytes: "65536",
}

func TestOwnTable(t *testing.T) {
	var listed []keywordID
	for _, k := range own {
		listed = append(listed, k.id)
		if lowerASCII(k.name) != keywords[k.id].name {
			t.Errorf("%s stands for %s", k.name, keywords[k.id].name)
		}
		if want := "SSM_SSH" + regexp.MustCompile("[A-Z][a-z]+").ReplaceAllStringFunc(k.name[3:], func(s string) string { return "_" + strings.ToUpper(s) }); k.variable != "" && k.variable != want {
			t.Errorf("%s has the variable %s, want %s", k.name, k.variable, want)
		}
	}
	for id := range keywords {
		if strings.HasPrefix(keywords[id].name, "ssm") != slices.Contains(listed, keywordID(id)) {
			t.Errorf("%s isn't where it belongs", keywords[id].name)
		}
	}
}

// By -o, by a file and by the environment a keyword comes to the same.
func TestOwnKeywords(t *testing.T) {
	for _, k := range own {
		t.Run(k.name, func(t *testing.T) {
			sample := ownSamples[k.id]
			want := keywords[k.id].name + " " + sample + "\n"
			dir := t.TempDir()
			env := testEnvironment(dir)
			if got := parse(t, env, "-G", "-o"+k.name+"="+sample, "h").Dump(); !strings.Contains(got, want) {
				t.Errorf("by -o: no %q", want)
			}
			env.OwnConfig = write(t, dir, "own", k.name+" "+sample+"\n")
			if got := parse(t, env, "-G", "h").Dump(); !strings.Contains(got, want) {
				t.Errorf("by the own file: no %q", want)
			}
			env = testEnvironment(t.TempDir())
			env.Getenv = func(name string) (string, bool) { return sample, name == k.variable }
			if got := parse(t, env, "-G", "h").Dump(); strings.Contains(got, want) != (k.variable != "") {
				t.Errorf("by the variable %q: %q", k.variable, want)
			}
		})
	}
}

func TestVariables(t *testing.T) {
	dir := t.TempDir()
	env := testEnvironment(dir)
	variables := map[string]string{"SSM_SSH_REGION": "from-variable", "SSM_SSH_WAIT": "", "SSM_SSH_DOCUMENT": `a "b`}
	env.Getenv = func(name string) (string, bool) { v, ok := variables[name]; return v, ok }
	env.OwnConfig = write(t, dir, "own", "SSMRegion from-file\nSSMWait 5\n")
	if o := parse(t, env, "h"); o.SSMRegion != "from-variable" || o.SSMWait != 5*time.Second || o.SSMDocument != `a "b` {
		t.Errorf("region %q, wait %v, document %q", o.SSMRegion, o.SSMWait, o.SSMDocument)
	}
	if o := parse(t, env, "-oSSMRegion=typed", "h"); o.SSMRegion != "typed" {
		t.Errorf("region %q", o.SSMRegion)
	}
	variables["SSM_SSH_PING_INTERVAL"], variables["SSM_SSH_MULTIPLEX"] = "1h", "x"
	_, err := Parse([]string{"h"}, env)
	const want = "SSM_SSH_MULTIPLEX: unsupported option \"x\".\nSSM_SSH_PING_INTERVAL: SSMPingInterval must be 5 seconds to 1 minute."
	var failure *Error
	if !errors.As(err, &failure) || failure.Text != want || failure.Code != 255 {
		t.Errorf("got %#v", err)
	}
}

// The manual page names each keyword and variable, in order, and no others.
func TestOwnKeywordsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/ssm-ssh.1")
	if err != nil {
		t.Fatal(err)
	}
	var names, want []string
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm (SSM\w+)(?: , Ev (\w+))?$`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1]+" "+m[2])
	}
	for _, k := range own {
		want = append(want, k.name+" "+k.variable)
	}
	if !slices.Equal(names, want) {
		t.Errorf("the page has\n%q, want\n%q", names, want)
	}
}

// One IgnoreUnknown keeps stock ssh happy with a file that has all our keywords.
func TestStockIgnoresOwnKeywords(t *testing.T) {
	ssh := stockSSH(t)
	config := "IgnoreUnknown SSM*\nHost h\n"
	for _, k := range own {
		config += "  " + k.name + " " + ownSamples[k.id] + "\n"
	}
	file := write(t, t.TempDir(), "config", config+"  Port 2222\n")
	out, err := exec.Command(ssh, "-F", file, "-G", "h").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nport 2222\n") {
		t.Errorf("%v\n%s", err, out)
	}
	ours := parse(t, testEnvironment(t.TempDir()), "-F", file, "h")
	if ours.SSMTarget != "mi-1" || ours.Port != 2222 {
		t.Errorf("we take target %q, port %d", ours.SSMTarget, ours.Port)
	}
}

func TestProxyCommandThatStartsASession(t *testing.T) {
	full := StartSession{Target: "i-1", Document: "Doc", Region: "r", Profile: "p", Endpoint: "https://e", Port: 22}
	tests := []struct {
		name  string
		args  []string
		finds StartSession
		err   error
		want  func(o *Options) bool
		says  string
	}{
		{"taken over", []string{"-oProxyCommand=aws %h", "h"}, full, nil, func(o *Options) bool {
			return o.ProxyCommand == "" && o.SSMTarget == "i-1" && o.SSMDocument == "Doc" && o.SSMRegion == "r" && o.SSMProfile == "p" &&
				o.SSMEndpoint == "https://e" && o.SSMPort == 0 && o.NodeName() == "i-1" && o.Host == "h"
		}, "built-in transport"},
		{"another port", []string{"-p", "23", "-oProxyCommand=aws", "h"}, full, nil, func(o *Options) bool { return o.SSMPort == 22 && o.Port == 23 }, "ssmtarget i-1"},
		{"the document's port", []string{"-oProxyCommand=aws", "h"}, StartSession{Target: "i-1", Document: "Doc"}, nil, func(o *Options) bool { return o.SSMPort == SSMPortNone }, ""},
		{"our keywords stay", []string{"-oSSMRegion=mine", "-oSSMPort=9", "-oSSMTarget=mi-%h", "-oProxyCommand=aws", "h"}, full, nil, func(o *Options) bool {
			return o.SSMRegion == "mine" && o.SSMTarget == "mi-h" && o.SSMPort == 9 && o.SSMProfile == "p" && o.ProxyCommand == ""
		}, ""},
		{"not understood", []string{"-oProxyCommand=aws", "i-2"}, StartSession{}, errors.New("the option --reason"), func(o *Options) bool {
			return o.ProxyCommand == "aws" && o.NodeName() == ""
		}, "run as written; not understood: the option --reason"},
		{"another command", []string{"-oProxyCommand=nc", "i-2"}, StartSession{}, nil, func(o *Options) bool { return o.ProxyCommand == "nc" && o.NodeName() == "" }, ""},
		{"our keyword beside another command", []string{"-oProxyCommand=nc", "-oSSMTarget=i-3", "h"}, StartSession{}, nil, func(o *Options) bool { return o.NodeName() == "i-3" }, ""},
		{"none", []string{"-oProxyCommand=none", "i-2"}, full, nil, func(o *Options) bool { return o.NodeName() == "i-2" && o.SSMTarget == "" }, ""},
		{"no target is wanted", []string{"-oSSMTarget=none", "-oProxyCommand=aws", "i-2"}, full, nil, func(o *Options) bool { return o.NodeName() == "" && o.ProxyCommand == "aws" }, ""},
		{"no target is wanted, nor a proxy", []string{"-oSSMTarget=none", "i-2"}, full, nil, func(o *Options) bool { return o.NodeName() == "" }, ""},
		{"by a jump", []string{"-J", "a", "i-2"}, full, nil, func(o *Options) bool { return o.NodeName() == "" && strings.Contains(o.ProxyCommand, "-W") }, ""},
		{"by jumps over nodes", []string{"-J", "i-3,u@i-4:2222", "i-2"}, full, nil, func(o *Options) bool { return o.NodeName() == "i-2" }, "SSM reaches i-2 without the jump over other nodes"},
		{"by a jump over a node and a host", []string{"-J", "i-3,a", "i-2"}, full, nil, func(o *Options) bool { return o.NodeName() == "" && strings.Contains(o.ProxyCommand, "-W") }, ""},
		{"a host by jumps over nodes", []string{"-J", "i-3,i-4", "a"}, full, nil, func(o *Options) bool { return strings.Contains(o.ProxyCommand, "-W") }, ""},
		{"a descriptor is wanted", []string{"-oProxyUseFdpass=yes", "-oProxyCommand=aws", "h"}, full, nil, func(o *Options) bool { return o.ProxyCommand == "aws" }, ""},
		{"-G shows what is written", []string{"-G", "-oProxyCommand=aws %h", "h"}, full, nil, func(o *Options) bool {
			return strings.Contains(o.Dump(), "\nproxycommand aws %h\n") && !strings.Contains(o.Dump(), "ssm")
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := testEnvironment(t.TempDir())
			env.IsTarget = func(host string) bool { return strings.HasPrefix(host, "i-") }
			env.StartSession = func(command string) (StartSession, error) {
				if strings.HasPrefix(command, "aws") {
					return tt.finds, tt.err
				}
				return StartSession{}, nil
			}
			o := parse(t, env, append([]string{"-v"}, tt.args...)...)
			if !tt.want(o) {
				t.Errorf("%+v", o)
			}
			said := ""
			for _, n := range o.Notices {
				said += n.Text + "\n"
			}
			if !strings.Contains(said, tt.says) {
				t.Errorf("says\n%swant %q", said, tt.says)
			}
		})
	}
}
