package sshopt

import (
	"strings"
	"testing"
)

// fuzzEnvironment keeps the fuzzer off the machine: no files of its invention are read, no command
// is run.
func fuzzEnvironment() Environment {
	env := testEnvironment("/nonexistent")
	env.Exec = func(string) (int, error) { return 1, nil }
	return env
}

func FuzzArguments(f *testing.F) {
	for _, corpus := range [][][]string{dumpCorpus, errorCorpus} {
		for _, args := range corpus {
			f.Add(strings.Join(args, "\n"))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\n")
		p := &parser{o: &Options{}, env: fuzzEnvironment(), commandLine: true}
		p.fillEnvironment()
		if err := p.arguments(args); err != nil {
			return
		}
		if !validHost(p.o.OriginalHost) {
			t.Fatalf("%q let the host %q through", args, p.o.OriginalHost)
		}
		p.commandLine = false
		p.o.ConfigFile = "none"
		if err := p.configure(); err != nil {
			return
		}
		if len(p.o.Ciphers) == 0 || p.o.Port < 1 || p.o.Port > 65535 || p.o.User == "" && !p.userTyped {
			t.Fatalf("%q gave %+v", args, p.o)
		}
		if p.o.Dump() == "" {
			t.Fatal("no dump")
		}
	})
}

func FuzzConfigLine(f *testing.F) {
	for _, c := range configCorpus {
		for line := range strings.Lines(c.config) {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(strings.ToLower(text), "include") {
			t.Skip("reads files")
		}
		p := &parser{o: &Options{LogLevel: LogInfo}, env: fuzzEnvironment()}
		p.fillEnvironment()
		on := true
		l := line{p: p, scope: &scope{file: "f", user: true}, num: 1, active: &on}
		err := l.apply(text)
		if err == errBadLine && len(p.o.Notices) == 0 {
			t.Fatalf("%q is refused without a word", text)
		}
		for _, n := range p.o.Notices {
			if strings.ContainsAny(n.Text, "\x00\x1b") {
				t.Fatalf("%q puts %q on the terminal", text, n.Text)
			}
		}
	})
}

func FuzzSplitWords(f *testing.F) {
	for _, s := range []string{`a "b c" d`, `'x\'y'`, `a\ b`, `"`, `a#b #c`, `\\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, ok := splitWords(s, nil, true)
		if !ok {
			return
		}
		total := 0
		for _, w := range words {
			total += len(w)
		}
		if total > len(s) {
			t.Fatalf("%q became %q", s, words)
		}
		// Words quoted again must come back.
		var quoted []string
		for _, w := range words {
			quoted = append(quoted, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(w)+`"`)
		}
		again, ok := splitWords(strings.Join(quoted, " "), nil, true)
		if !ok || strings.Join(again, "\x00") != strings.Join(words, "\x00") {
			t.Fatalf("%q came back as %q", words, again)
		}
	})
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"%h", "%%", "%", "${VALUE}", "${", "${}", "~/%C", "~you/x", "~nobody"} {
		f.Add(s)
	}
	p := &parser{o: &Options{}, env: fuzzEnvironment()}
	p.fillEnvironment()
	known := p.tokens()
	f.Fuzz(func(t *testing.T, s string) {
		for _, what := range []expansion{expandAll, expandCommand, expandProxy, expandHost, expandUser, expandVars} {
			got, err := p.expand(s, what, known)
			if err == nil && !strings.ContainsAny(s, "%$") && got != s {
				t.Fatalf("%q became %q", s, got)
			}
		}
		if _, err := p.expandPath(s, known); err != nil && err.Error() == "" {
			t.Fatal("an error without a text")
		}
	})
}

func FuzzForward(f *testing.F) {
	for _, s := range []string{"1:a:2", "[::1]:8:[::2]:9", "/a:/b", "x:1:/c", `a\:b:1:c:2`, "8080", "[a", "::::"} {
		f.Add(s, false, false)
	}
	p := &parser{o: &Options{LogLevel: LogInfo}, env: fuzzEnvironment()}
	p.fillEnvironment()
	f.Fuzz(func(t *testing.T, s string, dynamic, remote bool) {
		got, ok := p.parseForward(s, dynamic, remote)
		if !ok || strings.Contains(s, "$") {
			return
		}
		if dynamic != (got.Host == "" && got.Path == "" && got.HostPort == 0) && got.Host != "" {
			t.Fatalf("%q became %+v", s, got)
		}
		if got.BindPort < 0 || got.BindPort > 65535 || got.HostPort > 65535 {
			t.Fatalf("%q became %+v", s, got)
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("host.example", "*.example,!host*")
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "*a*a*a*a*a*a*a*a*a*b")
	f.Fuzz(func(t *testing.T, s, pattern string) {
		if matchPattern(s, s) != true {
			t.Fatalf("%q doesn't match itself", s)
		}
		if !matchPattern(s, "*"+pattern+"*") && matchPattern(s, pattern) {
			t.Fatalf("%q matches %q, but nothing wider", s, pattern)
		}
		matchList(s, pattern, true)
	})
}
