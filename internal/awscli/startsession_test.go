package awscli

import (
	"errors"
	"strings"
	"testing"
)

// guide is what AWS's guide says for Linux and macOS, with the tokens expanded.
const guide = `sh -c "aws ssm start-session --target i-0123456789abcdef0 --document-name AWS-StartSSHSession --parameters 'portNumber=22'"`

var plain = StartSession{Target: "i-0123456789abcdef0", Document: "AWS-StartSSHSession", Port: 22}

// with returns plain with something changed.
func with(change func(s *StartSession)) StartSession {
	s := plain
	change(&s)
	return s
}

// bare is the guide's command without its sh -c, of which something is replaced.
func bare(pairs ...string) string {
	const command = `aws ssm start-session --target i-0123456789abcdef0 --document-name AWS-StartSSHSession --parameters portNumber=22`
	return strings.NewReplacer(pairs...).Replace(command)
}

var understood = []struct {
	name    string
	command string
	want    StartSession
}{
	{"the guide", guide, plain},
	{"no shell", bare(), plain},
	{"bash, and a path to the CLI", `/bin/bash -c "/usr/local/bin/aws ssm start-session --target i-0123456789abcdef0 --document-name AWS-StartSSHSession --parameters 'portNumber=22'"`, plain},
	{"single quotes outside", `sh -c 'aws ssm start-session --target i-0123456789abcdef0 --document-name AWS-StartSSHSession --parameters "portNumber=22"'`, plain},
	{"exec", "exec " + bare(), plain},
	{"exec within sh", `sh -c "exec ` + bare() + `"`, plain},
	{"region and profile behind", bare() + " --region eu-west-1 --profile prod",
		with(func(s *StartSession) { s.Region, s.Profile = "eu-west-1", "prod" })},
	{"global options before", bare("aws ssm", "aws --profile prod --region=eu-west-1 ssm"),
		with(func(s *StartSession) { s.Region, s.Profile = "eu-west-1", "prod" })},
	{"global options between", bare("ssm start", "ssm --profile prod --region eu-west-1 start"),
		with(func(s *StartSession) { s.Region, s.Profile = "eu-west-1", "prod" })},
	{"a profile with blanks", bare() + ` --profile "my team"`, with(func(s *StartSession) { s.Profile = "my team" })},
	{"variables", `sh -c "AWS_PROFILE=prod AWS_REGION='eu-west-1' ` + bare() + `"`,
		with(func(s *StartSession) { s.Region, s.Profile = "eu-west-1", "prod" })},
	{"variables by env", "env AWS_DEFAULT_REGION=eu-west-1 " + bare(), with(func(s *StartSession) { s.Region = "eu-west-1" })},
	{"options go before variables", `AWS_PROFILE=a ` + bare() + ` --profile b`, with(func(s *StartSession) { s.Profile = "b" })},
	{"two names of one variable that agree", `AWS_PROFILE=a AWS_DEFAULT_PROFILE=a ` + bare(), with(func(s *StartSession) { s.Profile = "a" })},
	{"endpoint", bare() + " --endpoint-url https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com",
		with(func(s *StartSession) { s.Endpoint = "https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com" })},
	{"endpoint by variable", "AWS_ENDPOINT_URL_SSM=http://127.0.0.1:4566 " + bare(), with(func(s *StartSession) { s.Endpoint = "http://127.0.0.1:4566" })},
	{"another document", bare("AWS-StartSSHSession", "arn:aws:ssm:eu-west-1:123456789012:document/My_SSH.v2"),
		with(func(s *StartSession) { s.Document = "arn:aws:ssm:eu-west-1:123456789012:document/My_SSH.v2" })},
	{"another port", bare("=22", "=2222"), with(func(s *StartSession) { s.Port = 2222 })},
	{"a port in brackets", bare("portNumber=22", "'portNumber=[22]'"), plain},
	{"a port in brackets and quotes", bare("portNumber=22", `'portNumber=["22"]'`), plain},
	{"a port in quotes", bare("portNumber=22", `'portNumber="22"'`), plain},
	{"a port as JSON", bare("portNumber=22", `'{"portNumber":["22"]}'`), plain},
	{"a port as JSON within sh", `sh -c "aws ssm start-session --target i-0123456789abcdef0 --document-name AWS-StartSSHSession --parameters '{\"portNumber\": [\"22\"]}'"`, plain},
	{"no parameters", bare(" --parameters portNumber=22", ""), with(func(s *StartSession) { s.Port = 0 })},
	{"glued values", bare("--target ", "--target=", "--document-name ", "--document-name=", "--parameters ", "--parameters="), plain},
	{"tabs", strings.ReplaceAll(bare(), " ", "\t  "), plain},
	{"escaped letters", bare("aws", `\a\w\s`), plain},
}

var notUnderstood = []struct {
	name, command, why string
}{
	{"the guide for Windows", `C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe "aws ssm start-session --target i-0123456789abcdef0 --document-name AWS-StartSSHSession --parameters portNumber=22"`, `the command "C:WindowsSystem32WindowsPowerShellv1.0powershell.exe"`},
	{"PowerShell by its name", `powershell.exe "` + bare() + `"`, `the command "powershell.exe"`},
	{"a reason", bare() + " --reason ticket", "the option --reason"},
	{"an output format", bare() + " --output json", "the option --output"},
	{"a flag", bare("aws ssm", "aws --debug ssm"), "the option --debug"},
	{"no certificate check", bare() + " --no-verify-ssl", "the option --no-verify-ssl"},
	{"a short option", bare() + " -v", "the option -v"},
	{"an abbreviation", bare("--document-name", "--document"), "the option --document"},
	{"an option of start-session too early", `aws --target i-0123456789abcdef0 ssm start-session --document-name AWS-StartSSHSession`, "the option --target"},
	{"target from a command", `bash -c "aws ssm start-session --target $(echo i-0123456789abcdef0.eu-west-1|cut -d'.' -f1) --document-name AWS-StartSSHSession --parameters 'portNumber=22'"`, "more than"},
	{"a variable's value", bare() + " --profile $AWS_PROFILE", "more than"},
	{"a variable's value in quotes", bare() + ` --profile "${P}"`, "more than"},
	{"backticks", bare() + " --profile `cat p`", "more than"},
	{"two commands", "aws sso login; " + bare(), "more than"},
	{"and", "true && " + bare(), "more than"},
	{"a pipe", bare() + " | tee log", "more than"},
	{"stderr elsewhere", bare() + " 2>/dev/null", "more than"},
	{"in the background", bare() + " &", "more than"},
	{"a subshell", "(" + bare() + ")", "more than"},
	{"a pattern", bare("portNumber=22", "portNumber=[22]"), "more than"},
	{"braces", bare("i-0123456789abcdef0", "{i-0123456789abcdef0,}"), "more than"},
	{"a home folder", "~/bin/" + bare(), "more than"},
	{"a comment", bare() + " # mine", "more than"},
	{"a second line", bare() + "\nfoo", "more than"},
	{"a continued line", bare("ssm", "ssm \\\n"), "more than"},
	{"a backslash at the end", bare() + ` \`, "more than"},
	{"an open quote", bare() + ` "`, "a quote"},
	{"an open quote within sh", `sh -c "` + bare() + ` 'x"`, "a quote"},
	{"a wrapper", "aws-vault exec prod -- " + bare(), `the command "aws-vault"`},
	{"sudo", "sudo " + bare(), `the command "sudo"`},
	{"a login shell", `bash -lc "` + bare() + `"`, "how bash is called"},
	{"a shell with arguments", `sh -c "` + bare() + `" x`, "how sh is called"},
	{"a shell with a script", `sh start-session`, "how sh is called"},
	{"options of env", "env -i " + bare(), `the command "-i"`},
	{"another variable", "AWS_CONFIG_FILE=/x " + bare(), "the variable AWS_CONFIG_FILE"},
	{"a variable that makes all endpoints", "AWS_ENDPOINT_URL=http://x " + bare(), "the variable AWS_ENDPOINT_URL"},
	{"a variable that is emptied", "AWS_PROFILE= " + bare(), "the variable AWS_PROFILE"},
	{"two names of one variable that differ", "AWS_REGION=a AWS_DEFAULT_REGION=b " + bare(), "the variable AWS_DEFAULT_REGION"},
	{"a quoted assignment is a command", `"AWS_PROFILE=x" ` + bare(), `the command "AWS_PROFILE=x"`},
	{"no document", "aws ssm start-session --target i-0123456789abcdef0", "no --document-name"},
	{"no target", bare("--target i-0123456789abcdef0 ", ""), "no --target"},
	{"a document in a file", bare("AWS-StartSSHSession", "file://doc"), "the value of --document-name"},
	{"parameters in a file", bare("portNumber=22", "file://parameters"), "the value of --parameters"},
	{"more parameters", bare("portNumber=22", "portNumber=22,localPortNumber=9"), "the value of --parameters"},
	{"parameters of another host", bare("portNumber=22", `'{"portNumber":["22"],"host":["db"]}'`), "the value of --parameters"},
	{"two ports", bare("portNumber=22", `'{"portNumber":["22","23"]}'`), "the value of --parameters"},
	{"a port by name", bare("=22", "=ssh"), "the value of --parameters"},
	{"port 0", bare("=22", "=0"), "the value of --parameters"},
	{"a high port", bare("=22", "=65536"), "the value of --parameters"},
	{"a port with a sign", bare("=22", "=+22"), "the value of --parameters"},
	{"a second word of parameters", bare() + " localPortNumber=9", `the word "localPortNumber=9"`},
	{"an option twice", bare() + " --region a --region b", "--region twice"},
	{"an option without a value", bare() + " --region", "the value of --region"},
	{"an option for a value", bare() + " --profile --region x", "the value of --profile"},
	{"an odd region", bare() + " --region eu/west", "the value of --region"},
	{"an endpoint that is none", bare() + " --endpoint-url localhost", "the value of --endpoint-url"},
	{"another command of ssm", "aws ssm describe-sessions --start-session x", "the word"},
	{"words the wrong way round", "aws start-session ssm", "the word"},
}

var others = []string{"", "nc h 22", "ssh -W h:22 bastion", "aws ec2-instance-connect ssh", "aws ssm", "-", "none", "start-sessio"}

func TestParseStartSession(t *testing.T) {
	for _, tt := range understood {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := ParseStartSession(tt.command); err != nil || got != tt.want {
				t.Errorf("%s\n%+v, %v, want %+v", tt.command, got, err, tt.want)
			}
		})
	}
	for _, tt := range notUnderstood {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseStartSession(tt.command)
			if err == nil || errors.Is(err, ErrOther) || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("%s\n%+v, %v, want %q", tt.command, got, err, tt.why)
			}
		})
	}
	for _, command := range others {
		if got, err := ParseStartSession(command); !errors.Is(err, ErrOther) {
			t.Errorf("%q: %+v, %v, want ErrOther", command, got, err)
		}
	}
}
