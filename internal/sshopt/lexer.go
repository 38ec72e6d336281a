package sshopt

import "strings"

// blanks separate words on a line; a form feed only counts at its end (readconf.c, WHITESPACE).
const blanks = " \t\r\n"

// lowerASCII is strings.ToLower for what OpenSSH's tolower changes, and free when that is nothing.
func lowerASCII(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return lowerBytes(s)
		}
	}
	return s
}

func lowerBytes(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + ('a' - 'A')
		}
	}
	return string(b)
}

// splitKeyword takes the keyword off a line, lower-cased, with the blanks and at most one '='
// after it. Lines without a keyword (empty ones and comments) return "". A quote ends a keyword,
// too, and is kept in the rest; a quoted keyword is allowed (strdelim, misc.c).
func splitKeyword(line string) (keyword, rest string) {
	line = strings.TrimRight(line, blanks+"\f")
	line = strings.TrimLeft(line, blanks)
	if strings.HasPrefix(line, "=") { // one may stand before the keyword, too
		line = strings.TrimLeft(line[1:], blanks)
	}
	if line == "" || line[0] == '#' || line[0] == '=' {
		return "", ""
	}
	if line[0] == '"' {
		inner, rest, ok := strings.Cut(line[1:], `"`)
		if !ok {
			return "", ""
		}
		return lowerASCII(inner), strings.TrimLeft(rest, blanks)
	}
	end := strings.IndexAny(line, blanks+`"=`)
	if end < 0 {
		return lowerASCII(line), ""
	}
	keyword, rest = lowerASCII(line[:end]), line[end:]
	if rest[0] == '"' { // Port"22" reads as one word: the quotes vanish
		inner, after, ok := strings.Cut(rest[1:], `"`)
		if !ok {
			return "", ""
		}
		return keyword + lowerASCII(inner), strings.TrimLeft(after, blanks)
	}
	rest = strings.TrimLeft(rest, blanks)
	if strings.HasPrefix(rest, "=") {
		rest = strings.TrimLeft(rest[1:], blanks)
	}
	return keyword, rest
}

// splitWords splits a line's rest into its arguments (argv_split, misc.c): words between blanks,
// with quotes of both kinds anywhere in them, a backslash before a quote, a backslash or, outside
// quotes, a space, and, where comments are known, one where a word would begin. It reports false when
// a quote isn't closed.
func splitWords(s string, words []string, comments bool) ([]string, bool) {
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' {
			i++
			continue
		}
		if comments && s[i] == '#' {
			break
		}
		word, next, ok := cutWord(s, i)
		if !ok {
			return nil, false
		}
		words = append(words, word)
		i = next
	}
	return words, true
}

// cutWord returns the word that begins at s[i] and where it ends. Words without quotes and
// backslashes, which are nearly all, aren't copied.
func cutWord(s string, i int) (word string, next int, ok bool) {
	for j := i; ; j++ {
		if j == len(s) || s[j] == ' ' || s[j] == '\t' {
			return s[i:j], j, true
		}
		if s[j] == '"' || s[j] == '\'' || s[j] == '\\' {
			break
		}
	}
	var b []byte
	quote := byte(0)
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && escapes(s[i+1], quote):
			i++
			b = append(b, s[i])
		case quote == 0 && (c == ' ' || c == '\t'):
			return string(b), i, true
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		default:
			b = append(b, c)
		}
	}
	return string(b), len(s), quote == 0
}

// escapes reports whether a backslash before c is dropped.
func escapes(c, quote byte) bool {
	return c == '"' || c == '\'' || c == '\\' || c == ' ' && quote == 0
}
