package awscli

import (
	"errors"
	"strings"
)

// word is one word of a shell command. It is assigned where it gives a variable its value, if it stands
// before the command's name.
type word struct {
	text     string
	assigned bool
}

// errShell is a command that is more than words: only the shell knows what it comes to.
var errShell = errors.New("more than the words of one command")

// errQuote is a quote that isn't closed.
var errQuote = errors.New("a quote that isn't closed")

// splitShell splits one simple command as sh(1) does (POSIX, Shell Command Language, 2.2 and 2.3).
// Whatever a shell would put something else in the place of, or take for more than a word, is errShell.
func splitShell(command string) ([]word, error) {
	var words []word
	for i := 0; i < len(command); {
		if command[i] == ' ' || command[i] == '\t' {
			i++
			continue
		}
		w, next, err := shellWord(command, i)
		if err != nil {
			return nil, err
		}
		words = append(words, w)
		i = next
	}
	return words, nil
}

// shellWord returns the word that begins at s[i], and where it ends.
func shellWord(s string, i int) (word, int, error) {
	var w word
	var b strings.Builder
	plain := true // no quotes so far: what is before the first '=' may be a variable's name
	for start := i; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ' || c == '\t':
			w.text = b.String()
			return w, i, nil
		case c == '\'' || c == '"':
			inner, next, err := quoted(s, i)
			if err != nil {
				return w, 0, err
			}
			b.WriteString(inner)
			i, plain = next, false
		case c == '\\':
			if i+1 == len(s) || s[i+1] == '\n' {
				return w, 0, errShell
			}
			i++
			b.WriteByte(s[i])
			plain = false
		case isSpecial(c, i == start || s[i-1] == '=' || s[i-1] == ':'):
			return w, 0, errShell
		default:
			if c == '=' && plain && isName(s[start:i]) {
				w.assigned, plain = true, false
			}
			b.WriteByte(c)
		}
	}
	w.text = b.String()
	return w, len(s), nil
}

// quoted returns what the quotes that open at s[i] hold, and the place of the closing one.
func quoted(s string, i int) (string, int, error) {
	quote := s[i]
	var b strings.Builder
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == quote:
			return b.String(), i, nil
		case quote == '\'':
			b.WriteByte(c)
		case c == '$' || c == '`':
			return "", 0, errShell
		case c == '\\' && i+1 < len(s) && strings.IndexByte("$`\"\\", s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case c == '\\' && i+1 < len(s) && s[i+1] == '\n':
			return "", 0, errShell
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, errQuote
}

// isSpecial reports whether an unquoted character makes a shell do more than take it; first says whether it
// stands where a ~ names a home folder and, at the head of a word, a # begins a comment.
func isSpecial(c byte, first bool) bool {
	if c < ' ' || c == 0x7f {
		return true
	}
	return strings.IndexByte("|&;<>()$`*?[]{}!^", c) >= 0 || first && (c == '~' || c == '#')
}

// isName reports whether s can name a variable.
func isName(s string) bool {
	for i := range len(s) {
		letter := s[i] | 0x20
		digit := s[i] >= '0' && s[i] <= '9'
		if s[i] != '_' && (letter < 'a' || letter > 'z') && (!digit || i == 0) {
			return false
		}
	}
	return s != ""
}
