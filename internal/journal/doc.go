// Package journal keeps on disk which SSM sessions this user's processes have started and not yet
// ended, so that what a crash, a SIGKILL or a power cut leaves behind is found and ended by whoever
// comes next.
//
//	j, err := journal.Open()
//	tag := journal.NewTag()
//	entry, err := j.Begin(journal.Record{Tag: tag, Target: "mi-…", Region: "eu-west-1"})
//	// StartSession, with the tag in its reason
//	err = entry.Started(id, owner)
//	// … TerminateSession was answered
//	err = entry.Remove()
//
// and at the next start:
//
//	items, err := j.List()
//	entry, err := j.Claim(items[0].Tag)   // for the stale ones
//
// The folder is $XDG_STATE_HOME/ssm-ssh/sessions, mode 0700, with one file per session, whose name is
// the session's tag:
//
//	{"tag":…,"target":…,"region":…,…,"host":…,"namespace":…,"boot":…,"pid":…,"began":…}   the intent
//	{"session":…,"owner":…}                                                               its answer
//	{"stale":…}  {"failed":…}                                                             a reaper's notes
//
// A file comes into being under the name TAG.new, is locked, written, synced and only then renamed; the
// later lines are appended. So whatever the moment of a crash, there is no file and no session, or a
// file whose first line is whole. A later line that isn't is passed over: the intent alone is enough to
// find the session, by its tag.
//
// Whoever owns the session holds the file's lock (flock(2)) for life; the lock goes with the process,
// however that dies. A file that nobody holds is stale and may be claimed, by one process at a time.
// Files of another host or of another process namespace are never stale: there the lock may say
// nothing.
//
// What this package doesn't know: AWS. No token is ever handed to it.
//
// It has no goroutines. An Entry holds one descriptor.
package journal
