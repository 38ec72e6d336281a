// Package test holds what is tested about the whole tree: who imports whom, and the examples.
package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "ssm-ssh"

// reasons maps what may be imported to why it is. A path stands for everything below it.
type reasons map[string]string

// rule is what one package may import beside the standard library. What isn't named is forbidden.
type rule struct {
	may   reasons // its own import statements
	never reasons // nor anything that it links
}

// The table. A package without an entry is held to that of the longest path above it.
var table = map[string]rule{
	"cmd/ssm-ssh": {may: reasons{
		"ssm-ssh":                             "the packages meet here and nowhere else",
		"github.com/peterbourgon/ff/v3/ffcli": "admin verbs; see verbFiles",
		"golang.org/x/crypto/ssh":             "types in the surface of sshproxy",
		"golang.org/x/sys":                    "the caller's descriptors",
	}, never: reasons{
		"text/template": "has the linker keep all methods of all types, 8 MiB: docs/decisions/007",
	}},
	"sshproxy": {may: reasons{
		"ssm-ssh/internal/fdpass": "mux clients hand over their descriptors",
		"ssm-ssh/internal/tty":    "window size and modes of a pty",
		"ssm-ssh/internal/krl":    "revoked host keys",
		"golang.org/x/crypto":     "the SSH protocol",
		"golang.org/x/term":       "prompts",
		"golang.org/x/sys":        "sockets of the control master",
	}, never: reasons{
		"ssm-ssh/ssmchannel":      "knows any net.Conn, and no particular one",
		"ssm-ssh/internal/awsapi": "works without AWS",
		"ssm-ssh/sftpbridge":      "is below it",
		"github.com/aws":          "works without AWS",
		"github.com/coder":        "works without a websocket",
	}},
	"ssmchannel": {may: reasons{
		"ssm-ssh/ssmchannel/agentmsg": "the message codec",
		"github.com/coder/websocket":  "docs/decisions/001",
	}, never: reasons{
		"golang.org/x/crypto/ssh": "carries any bytes",
		"github.com/aws":          "is handed functions that sign and resume",
		"ssm-ssh/sshproxy":        "carries any bytes",
		"ssm-ssh/internal":        "may be used by other programs",
	}},
	"ssmchannel/agentmsg": {may: reasons{}, never: reasons{
		"ssm-ssh/ssmchannel/": "both ends use the codec and share nothing else",
	}},
	"sftpbridge": {may: reasons{
		"github.com/pkg/sftp": "the SFTP protocol",
	}, never: reasons{
		"ssm-ssh/sshproxy": "knows any pair of streams", "ssm-ssh/ssmchannel": "knows any pair of streams", "github.com/aws": "works without AWS",
	}},
	"ansible": {may: reasons{}, never: reasons{"ssm-ssh": "is data and text only"}},
	"internal": {may: reasons{
		"ssm-ssh/internal/report": "errors and log lines of one shape",
		"golang.org/x/sys":        "the operating system",
		"golang.org/x/term":       "the terminal",
	}, never: reasons{
		"ssm-ssh/sshproxy": "is below it", "ssm-ssh/ssmchannel": "is below it", "github.com/aws": "leaves AWS to awsapi",
	}},
	"internal/awsapi": {may: reasons{
		"ssm-ssh/internal/report":      "errors and log lines of one shape",
		"ssm-ssh/internal/target":      "forms of targets",
		"github.com/aws/aws-sdk-go-v2": "the only place for it",
		"github.com/aws/smithy-go":     "the errors of the SDK",
	}, never: reasons{
		"ssm-ssh/sshproxy": "hands out sessions and doesn't know what for", "ssm-ssh/ssmchannel": "hands out sessions and doesn't know what for",
		"github.com/aws/aws-sdk-go-v2/service/ssm/schemas": "leaves every start 1.5 ms and 2 MB cheaper: docs/decisions/007",
		"github.com/aws/aws-sdk-go-v2/service/ec2":         "links few services: each costs start-up time and memory",
		"github.com/aws/aws-sdk-go-v2/service/kms":         "links few services: each costs start-up time and memory",
	}},
	"internal/krl": {may: reasons{
		"golang.org/x/crypto/ssh": "keys and their signatures",
	}},
	"internal/testenv": {may: reasons{
		"go.uber.org/goleak": "for tests",
		"golang.org/x/sys":   "clocks of other processes",
	}},
	"test": {may: reasons{}},
	"test/conformance": {may: reasons{
		"golang.org/x/sys": "a network for each script, and what it leaves behind",
	}, never: reasons{
		"ssm-ssh/": "knows the program by its path only",
	}},
	"test/lab": {may: reasons{
		"ssm-ssh/ssmchannel/agentmsg": "the message codec, held to vectors of its own",
		"github.com/coder/websocket":  "the gateway",
		"golang.org/x/crypto/ssh":     "keys, and the server where there is no sshd",
		"github.com/pkg/sftp":         "the server where there is no sshd",
		"github.com/xtaci/smux":       "the agent's end of a forwarding session",
		"golang.org/x/sys":            "sshd's process",
	}, never: reasons{
		"testing":                 "ships inside the program",
		"ssm-ssh/ssmchannel/":     "shares no state machine with what it tests",
		"ssm-ssh/sshproxy":        "is what that is tested with",
		"ssm-ssh/internal/awsapi": "is what that is tested with",
		"github.com/aws":          "is spoken to by clients that bring their own",
	}},
}

// alone ends an entry that is about one package and nothing below it.
const alone = "/"

// verbFiles are the only files that may import the parser of the admin verbs.
var verbFiles = []string{"cmd/ssm-ssh/admin.go", "cmd/ssm-ssh/lab.go", "cmd/ssm-ssh/sessions.go"}

const verbParser = "github.com/peterbourgon/ff"

// imports is what `go list` says of a package.
type imports struct {
	ImportPath    string
	Standard      bool
	Imports, Deps []string
}

// covers says whether an entry of the table is about a path. An entry that ends in a slash is about
// the one package before it, any other about everything below as well.
func covers(entry, imported string) bool {
	if one, ok := strings.CutSuffix(entry, alone); ok {
		return imported == one
	}
	return imported == entry || strings.HasPrefix(imported, entry+"/")
}

func coveredBy(entries reasons, imported string) (why string, ok bool) {
	for entry, why := range entries {
		if covers(entry, imported) {
			return why, true
		}
	}
	return "", false
}

// ruleOf returns the rule of a package, or of the longest path above it that has one.
func ruleOf(rules map[string]rule, pkg string) (rule, bool) {
	for name := strings.TrimPrefix(pkg, module+"/"); name != "."; name = path.Dir(name) {
		if r, ok := rules[name]; ok {
			return r, true
		}
	}
	return rule{}, false
}

// violations holds packages against the rules.
func violations(rules map[string]rule, packages []imports) []string {
	standard := make(map[string]bool)
	for _, p := range packages {
		standard[p.ImportPath] = p.Standard
	}
	found := make(map[string]bool)
	for _, p := range packages {
		if !strings.HasPrefix(p.ImportPath, module+"/") {
			continue
		}
		r, ok := ruleOf(rules, p.ImportPath)
		if !ok {
			found[p.ImportPath+" has no entry in the table"] = true
		}
		for _, i := range p.Imports {
			if _, ok := coveredBy(r.may, i); !ok && !standard[i] && i != "C" {
				found[fmt.Sprintf("%s imports %s, which the table doesn't allow", p.ImportPath, i)] = true
			}
		}
		for _, d := range p.Deps {
			if why, ok := coveredBy(r.never, d); ok {
				found[fmt.Sprintf("%s links %s: never, since it %s", p.ImportPath, d, why)] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// list asks the go command about all packages of the module and what they link.
func list(t *testing.T, system string) []imports {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []imports
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p imports
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestWhoImportsWhom(t *testing.T) {
	for _, system := range []string{"linux", "darwin"} {
		t.Run(system, func(t *testing.T) {
			for _, v := range violations(table, list(t, system)) {
				t.Error(v)
			}
		})
	}
}

// Without this a table that allows everything would pass.
func TestViolationsAreFound(t *testing.T) {
	rules := map[string]rule{
		"a":       {may: reasons{"ssm-ssh/b": "", "example.org/x": ""}, never: reasons{"example.org/bad": "is bad", "ssm-ssh/b/": "is above c"}},
		"a/inner": {},
	}
	tests := []struct {
		name string
		pkg  imports
		want []string
	}{
		{"allowed", imports{ImportPath: "ssm-ssh/a", Imports: []string{"fmt", "ssm-ssh/b", "example.org/x/y"}, Deps: []string{"ssm-ssh/b/c"}}, nil},
		{"not named", imports{ImportPath: "ssm-ssh/a", Imports: []string{"example.org/xy"}},
			[]string{"ssm-ssh/a imports example.org/xy, which the table doesn't allow"}},
		{"never, by way of another", imports{ImportPath: "ssm-ssh/a", Deps: []string{"example.org/bad/deep"}},
			[]string{"ssm-ssh/a links example.org/bad/deep: never, since it is bad"}},
		{"the one above what is allowed", imports{ImportPath: "ssm-ssh/a", Deps: []string{"ssm-ssh/b"}},
			[]string{"ssm-ssh/a links ssm-ssh/b: never, since it is above c"}},
		{"inner with a rule of its own", imports{ImportPath: "ssm-ssh/a/inner", Imports: []string{"ssm-ssh/b"}},
			[]string{"ssm-ssh/a/inner imports ssm-ssh/b, which the table doesn't allow"}},
		{"inner without", imports{ImportPath: "ssm-ssh/a/other", Imports: []string{"ssm-ssh/b"}}, nil},
		{"no rule", imports{ImportPath: "ssm-ssh/z"}, []string{"ssm-ssh/z has no entry in the table"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			packages := []imports{{ImportPath: "fmt", Standard: true}, tt.pkg}
			if got := violations(rules, packages); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEveryRuleHasAReason(t *testing.T) {
	for name, r := range table {
		for _, entries := range []reasons{r.may, r.never} {
			for entry, why := range entries {
				if why == "" {
					t.Errorf("%s: %s has none", name, entry)
				}
			}
		}
	}
}

// The parser of the admin verbs must not come near the command line of ssh.
func TestOnlyVerbsAreParsedByTheLibrary(t *testing.T) {
	files, err := filepath.Glob("../cmd/*/*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	seen := 0
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil || !covers(verbParser, name) {
				continue
			}
			seen++
			if !slices.Contains(verbFiles, filepath.ToSlash(strings.TrimPrefix(file, "../"))) {
				t.Errorf("%s imports %s", file, name)
			}
		}
	}
	if seen == 0 {
		t.Error("no file imports it: is the name in this test still right?")
	}
}
