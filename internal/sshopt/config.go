package sshopt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxDepth is how deep Include may nest (readconf.c, READCONF_MAX_DEPTH).
const maxDepth = 16

// maxFileBytes bounds what is read of one file: a name that leads to /dev/zero must not fill the
// memory. OpenSSH has no such bound; real files are some kilobytes.
const maxFileBytes = 16 << 20

// errBadLine is a line whose fault has been logged. Reading goes on, so that all faults of a file
// are reported at once.
var errBadLine = errors.New("bad line")

// scope is the file that is being read and how.
type scope struct {
	file       string
	user       bool // not the system's: ~ is allowed in Include, IdentityFile is the user's word
	checkOwner bool
	variable   bool // it is one of the environment's variables, not a file
	never      bool // included by a block that doesn't apply: only its syntax counts
	depth      int
}

// line is one line of it, being parsed.
type line struct {
	p      *parser
	scope  *scope
	num    int
	active *bool // whether the present Host or Match block applies

	kw   namedKeyword
	word string // the keyword as OpenSSH's errors show it
	args []string
	rest string // the arguments unsplit
}

// readFiles reads this program's own file, the user's and the system's; with -F, only that one.
func (p *parser) readFiles() error {
	if p.o.ConfigFile != "" {
		if isNone(p.o.ConfigFile) {
			return nil
		}
		err := p.readFile(&scope{file: p.o.ConfigFile, user: true}, nil)
		if cause := openFailure(err); cause != nil {
			return cantOpen(p.o.ConfigFile, cause)
		}
		return err
	}
	files := [...]scope{
		{file: p.env.OwnConfig, user: true, checkOwner: true},
		{file: p.env.UserConfig, user: true, checkOwner: true},
		{file: p.env.SystemConfig},
	}
	for i := range files {
		if files[i].file == "" {
			continue
		}
		err := p.readFile(&files[i], nil)
		if cause := openFailure(err); cause != nil && i == 0 && p.env.OwnConfigNamed {
			return cantOpen(files[i].file, cause)
		} else if cause == nil && err != nil {
			return err
		}
	}
	return nil
}

func cantOpen(file string, cause error) error {
	return fatal("Can't open user config file " + file + ": " + reason(cause))
}

// openError is a file that can't be opened, which the caller judges.
type openError struct{ error }

func openFailure(err error) error {
	var open openError
	if errors.As(err, &open) {
		return open.error
	}
	return nil
}

// readFile applies one file. active is the including block's state; nil at the top.
func (p *parser) readFile(s *scope, active *bool) error {
	if s.depth > maxDepth {
		return fatal(textTooDeep)
	}
	data, err := p.load(s)
	if err != nil {
		return err
	}
	p.log(1, "Reading configuration data "+s.file)
	if active == nil {
		on := true
		active = &on
	}
	bad := 0
	for num := 1; data != ""; num++ {
		var text string
		text, data, _ = strings.Cut(data, "\n")
		l := line{p: p, scope: s, num: num, active: active}
		if err := l.apply(text); errors.Is(err, errBadLine) {
			bad++
		} else if err != nil {
			return err
		}
	}
	if bad > 0 {
		return fatal(fmt.Sprintf("%s: terminating, %d bad configuration options", s.file, bad))
	}
	return nil
}

// load returns the file's text.
func (p *parser) load(s *scope) (string, error) {
	f, err := os.Open(s.file)
	if err != nil {
		return "", openError{err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fatal("fstat " + s.file + ": " + reason(err))
	}
	if s.checkOwner && !p.trusted(info) {
		return "", fatal("Bad owner or permissions on " + s.file)
	}
	if info.IsDir() {
		return "", nil // reading a directory ends at once, without an error, in OpenSSH
	}
	return readBounded(f, info.Size())
}

// readBounded reads f in one go when its size is known.
func readBounded(f *os.File, size int64) (string, error) {
	var b strings.Builder
	b.Grow(int(min(max(size, 512), maxFileBytes)))
	chunk := make([]byte, 4096)
	for b.Len() < maxFileBytes {
		n, err := f.Read(chunk)
		b.Write(chunk[:n])
		if err != nil {
			break // OpenSSH takes a read error for the end of the file
		}
	}
	return b.String(), nil
}

// trusted reports whether nobody but root and the user can have written the file.
func (p *parser) trusted(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	return (stat.Uid == 0 || int(stat.Uid) == p.env.UID) && info.Mode().Perm()&0o022 == 0
}

// commandLineOption applies the argument of -o, as a line of a file that has no name.
func (p *parser) commandLineOption(text string) error {
	on := true
	l := line{p: p, scope: &scope{file: "command-line", user: true}, active: &on}
	err := l.apply(text)
	if errors.Is(err, errBadLine) {
		return &Error{Code: exitStatus} // all is said already
	}
	return err
}

// apply takes in one line.
func (l *line) apply(text string) error {
	l.word, l.rest = splitKeyword(text)
	if l.word == "" {
		return nil
	}
	if l.rest == "" {
		return l.bad("no argument after keyword \"" + l.word + "\"")
	}
	l.kw = lookup(l.word)
	ignored := l.kw.id == kwNone && l.p.o.IgnoreUnknown != "" && matchList(l.word, l.p.o.IgnoreUnknown, true) > 0
	if l.kw.id == kwNone && !ignored {
		l.p.log(-1, l.scope.file+": line "+strconv.Itoa(l.num)+": Bad configuration option: "+l.word)
	}
	var room [8]string
	var ok bool
	if l.args, ok = splitWords(l.rest, room[:0], true); !ok {
		return l.bad("invalid quotes")
	}
	switch {
	case ignored:
		l.p.log(1, l.where()+": Ignored unknown option \""+l.word+"\"")
		return nil
	case l.kw.id == kwNone:
		return errBadLine
	}
	return l.dispatch()
}

// dispatch runs the keyword's own parser.
func (l *line) dispatch() error {
	var err error
	switch l.kw.id {
	case kwIgnored:
		return nil
	case kwDeprecated:
		l.p.log(1, l.where()+": Deprecated option \""+l.word+"\"")
		return nil
	case kwUnsupported:
		l.p.log(-1, l.where()+": Unsupported option \""+l.word+"\"")
		return nil
	case kwHost:
		err = l.host()
	case kwMatch:
		err = l.match()
	case kwInclude:
		err = l.include()
	default:
		err = l.kw.parse(l)
	}
	if err == nil && len(l.args) > 0 {
		return l.bad("keyword " + l.word + " extra arguments at end of line")
	}
	return err
}

func (l *line) where() string {
	if l.scope.variable {
		return l.scope.file
	}
	return l.scope.file + " line " + strconv.Itoa(l.num)
}

// bad logs what is wrong with the line.
func (l *line) bad(text string) error {
	l.p.log(-1, l.where()+": "+text)
	return errBadLine
}

// fatal ends everything because of the line.
func (l *line) fatal(text string) error { return fatal(l.where() + ": " + text) }

// next takes the next argument. It returns "" when there is none.
func (l *line) next() string {
	if len(l.args) == 0 {
		return ""
	}
	arg := l.args[0]
	l.args = l.args[1:]
	return arg
}

// take reports whether the line's value is to be stored: its block applies and no earlier line set
// the keyword.
func (l *line) take() bool { return *l.active && l.p.mark(l.kw.id) }

// host begins a block that applies to the hosts it names.
func (l *line) host() error {
	if l.p.commandLine {
		l.p.log(-1, "Host directive not supported as a command-line option")
		return errBadLine
	}
	*l.active = false
	host := l.p.matchedHost()
	for len(l.args) > 0 {
		arg := l.next()
		if arg == "" {
			return l.bad("keyword host empty argument")
		}
		if l.scope.never {
			break
		}
		pattern, negated := strings.CutPrefix(arg, "!")
		if !matchPattern(host, pattern) {
			continue
		}
		if negated {
			l.p.log(1, l.where()+": Skipping Host block because of negated match for "+pattern)
			*l.active = false
			break
		}
		if !*l.active {
			l.p.log(1, l.where()+": Applying options for "+pattern)
		}
		*l.active = true
	}
	l.args = nil
	return nil
}

// include reads other files. What they say of Host and Match ends with them.
func (l *line) include() error {
	if l.p.commandLine {
		l.p.log(-1, "Include directive not supported as a command-line option")
		return errBadLine
	}
	for len(l.args) > 0 {
		arg := l.next()
		if arg == "" {
			return l.bad("keyword include empty argument")
		}
		pattern, err := l.includePattern(arg)
		if err != nil {
			return err
		}
		full, err := l.p.expandTilde(pattern)
		if err != nil {
			return err
		}
		paths, err := filepath.Glob(full) // sorted, as glob(3)'s
		if err != nil {
			return l.bad("glob failed for " + pattern + ".")
		}
		if len(paths) == 0 {
			l.p.log(1, l.where()+": include "+pattern+" matched no files")
		}
		for _, path := range paths {
			if err := l.includeFile(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// includePattern anchors the name that Include gives: below ~/.ssh for the user's files, below
// /etc/ssh for the system's.
func (l *line) includePattern(arg string) (string, error) {
	if strings.Contains(arg, "%") || strings.Contains(arg, "${") {
		expanded, err := l.p.expandEarly(arg, true)
		if err != nil {
			return "", err
		}
		arg = expanded
	}
	switch {
	case strings.HasPrefix(arg, "/"):
		return arg, nil
	case !l.scope.user && strings.HasPrefix(arg, "~"):
		return "", l.bad("bad include path " + arg + ".")
	case !l.scope.user:
		return filepath.Dir(l.p.env.SystemConfig) + "/" + arg, nil
	case !strings.HasPrefix(arg, "~"):
		arg = "~/.ssh/" + arg
	}
	return arg, nil
}

func (l *line) includeFile(path string) error {
	s := scope{file: path, user: l.scope.user, checkOwner: true, depth: l.scope.depth + 1,
		never: l.scope.never || !*l.active}
	active, parseOnly := *l.active, ""
	if !active {
		parseOnly = " (parse only)"
	}
	l.p.log(3, l.where()+": Including file "+path+" depth "+strconv.Itoa(l.scope.depth)+parseOnly)
	err := l.p.readFile(&s, &active)
	cause := openFailure(err)
	switch {
	case cause == nil:
		return err
	case errors.Is(cause, fs.ErrNotExist):
		return nil // gone since the glob
	}
	l.p.log(-1, "Can't open user config file "+path+": "+reason(cause))
	return errBadLine
}
