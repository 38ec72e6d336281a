package sshopt

// KeywordSet says of every keyword whether it was set. It is an array of plain numbers, so that
// Options keeps it through JSON.
type KeywordSet [3]uint64

func (s *KeywordSet) add(id keywordID)      { s[id/64] |= 1 << (id % 64) }
func (s *KeywordSet) has(id keywordID) bool { return s[id/64]&(1<<(id%64)) != 0 }

// IsSet reports whether the user set the keyword, in any case, by a flag or in a file. It is false
// for one that only has its default, and for words that are no keywords.
func (o *Options) IsSet(name string) bool {
	kw := lookup(lowerASCII(name))
	return kw.parse != nil && o.Set.has(kw.id)
}

// keywordID is a keyword's place in the table.
type keywordID uint
