// Package awscli reads the one command of the AWS CLI that people give ssh as ProxyCommand:
//
//	sh -c "aws ssm start-session --target %h --document-name AWS-StartSSHSession --parameters 'portNumber=%p'"
//
// ParseStartSession takes it apart, tokens expanded, so that a session can be started without the CLI.
// It understands a command wholly or not at all: what has anything in it that is not named here, be it an
// option, a variable, or more of the shell's language than words and quotes, is for the caller to run as it is
// written. Nothing is run, looked up or expanded here. What this package doesn't know: what a node's id
// looks like, and what is done with the session.
//
// Sources: the guide "Allow and control permissions for SSH connections through Session Manager" of AWS;
// the reference of `aws ssm start-session` and of the CLI's global options, variables and shorthand syntax.
package awscli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// StartSession is a command that starts a session to a port. Region, Profile and Endpoint are empty
// where it leaves them to the environment. Port is 0 where it leaves it to the document.
type StartSession struct {
	Target, Document, Region, Profile, Endpoint string
	Port                                        int
}

// ErrOther is a command in which there is no start of a session at all.
var ErrOther = errors.New("no aws ssm start-session")

// maxNesting is how deep sh -c may be nested; the guide has it once.
const maxNesting = 3

// ParseStartSession returns what a ProxyCommand starts. Any other error than ErrOther says what in it is not
// understood.
func ParseStartSession(command string) (StartSession, error) {
	if !strings.Contains(command, "start-session") {
		return StartSession{}, ErrOther
	}
	p := parser{given: map[string]string{}}
	if err := p.command(command, 0); err != nil {
		return StartSession{}, err
	}
	return p.result()
}

// parser gathers the values that a command gives, by the names of the CLI's options. Those of variables
// go below them.
type parser struct {
	given     map[string]string
	variables map[string]string
}

// command reads a shell command: words that begin with variables, then a shell with a script, or aws.
func (p *parser) command(text string, depth int) error {
	words, err := splitShell(text)
	if err != nil {
		return err
	}
	if len(words) > 0 && words[0].text == "exec" {
		words = words[1:]
	}
	if words, err = p.assignments(words, false); err != nil {
		return err
	}
	if len(words) > 0 && baseName(words[0].text) == "env" {
		if words, err = p.assignments(words[1:], true); err != nil {
			return err
		}
	}
	if len(words) == 0 {
		return ErrOther
	}
	switch baseName(words[0].text) {
	case "aws":
		return p.aws(words[1:])
	case "sh", "bash", "dash", "ksh", "zsh":
		if len(words) != 3 || words[1].text != "-c" || depth == maxNesting {
			return fmt.Errorf("how %s is called", words[0].text)
		}
		return p.command(words[2].text, depth+1)
	}
	return fmt.Errorf("the command %q", words[0].text)
}

// variables are those whose meaning an option of the CLI has, too. A variable that names a profile counts as
// its option does, although the CLI prefers keys in the environment to it: who writes it means that profile.
var variables = map[string]string{
	"AWS_PROFILE": "--profile", "AWS_DEFAULT_PROFILE": "--profile",
	"AWS_REGION": "--region", "AWS_DEFAULT_REGION": "--region",
	"AWS_ENDPOINT_URL_SSM": "--endpoint-url",
}

// assignments takes the leading NAME=value words off. For env(1) quotes make no difference.
func (p *parser) assignments(words []word, env bool) ([]word, error) {
	for ; len(words) > 0; words = words[1:] {
		name, value, ok := strings.Cut(words[0].text, "=")
		if !ok || !env && !words[0].assigned {
			break
		}
		option := variables[name]
		if option == "" || value == "" {
			return nil, fmt.Errorf("the variable %s", name)
		}
		if before, twice := p.variables[option]; twice && before != value {
			return nil, fmt.Errorf("the variable %s beside another value", name)
		}
		if p.variables == nil {
			p.variables = map[string]string{}
		}
		p.variables[option] = value
	}
	return words, nil
}

// isGlobal reports whether an option may stand before the CLI's command, too.
func isGlobal(option string) bool {
	return option == "--profile" || option == "--region" || option == "--endpoint-url"
}

// isOwn reports whether it is one of start-session's that is understood.
func isOwn(option string) bool {
	return option == "--target" || option == "--document-name" || option == "--parameters"
}

// aws reads the words after the program's name.
func (p *parser) aws(words []word) error {
	rest := []string{"ssm", "start-session"} // the words without dashes that are still to come
	for len(words) > 0 {
		text := words[0].text
		words = words[1:]
		if !strings.HasPrefix(text, "-") {
			if len(rest) == 0 || text != rest[0] {
				return fmt.Errorf("the word %q", text)
			}
			rest = rest[1:]
			continue
		}
		option, value, glued := strings.Cut(text, "=")
		if !isGlobal(option) && (!isOwn(option) || len(rest) > 0) {
			return fmt.Errorf("the option %s", option)
		}
		if !glued && len(words) > 0 {
			value, words = words[0].text, words[1:]
		}
		if value == "" || strings.HasPrefix(value, "-") {
			return fmt.Errorf("the value of %s", option)
		}
		if _, twice := p.given[option]; twice {
			return fmt.Errorf("%s twice", option)
		}
		p.given[option] = value
	}
	if len(rest) > 0 {
		return ErrOther
	}
	return nil
}

// result checks the values, and that none is missing that a session to a port needs.
func (p *parser) result() (StartSession, error) {
	for option, value := range p.variables {
		if _, given := p.given[option]; !given {
			p.given[option] = value
		}
	}
	s := StartSession{Target: p.given["--target"], Document: p.given["--document-name"], Region: p.given["--region"],
		Profile: p.given["--profile"], Endpoint: p.given["--endpoint-url"]}
	switch {
	case s.Target == "":
		return s, errors.New("no --target")
	case s.Document == "": // a shell session, whose output is no SSH
		return s, errors.New("no --document-name")
	case !isPlain(s.Document, "-_.:/") || strings.Contains(s.Document, "://"): // file://
		return s, errors.New("the value of --document-name")
	case !isPlain(s.Region, "-"):
		return s, errors.New("the value of --region")
	case s.Endpoint != "" && !isURL(s.Endpoint):
		return s, errors.New("the value of --endpoint-url")
	}
	parameters, given := p.given["--parameters"]
	if !given {
		return s, nil
	}
	port, ok := portParameter(parameters)
	if !ok {
		return s, errors.New("the value of --parameters")
	}
	s.Port = port
	return s, nil
}

// portParameter reads the value of --parameters where portNumber is all that is in it, in the CLI's
// shorthand or as JSON.
func portParameter(value string) (int, bool) {
	if strings.HasPrefix(value, "{") {
		var all map[string][]string
		if err := json.Unmarshal([]byte(value), &all); err != nil || len(all) != 1 || len(all["portNumber"]) != 1 {
			return 0, false
		}
		value = all["portNumber"][0]
	} else {
		var ok bool
		if value, ok = strings.CutPrefix(value, "portNumber="); !ok {
			return 0, false
		}
		value = unwrap(unwrap(value, "[", "]"), `"`, `"`)
	}
	port, err := strconv.Atoi(value)
	return port, err == nil && strconv.Itoa(port) == value && port >= 1 && port <= 65535
}

// unwrap takes a pair of brackets or quotes off, if both are there.
func unwrap(s, open, shut string) string {
	if len(s) > 1 && strings.HasPrefix(s, open) && strings.HasSuffix(s, shut) {
		return s[1 : len(s)-1]
	}
	return s
}

// isPlain reports whether s holds nothing but letters, digits and the other characters.
func isPlain(s, others string) bool {
	for i := range len(s) {
		letter := s[i] | 0x20
		if (letter < 'a' || letter > 'z') && (s[i] < '0' || s[i] > '9') && strings.IndexByte(others, s[i]) < 0 {
			return false
		}
	}
	return true
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http")
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
