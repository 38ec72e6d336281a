// Package sshopt turns an ssh command line and the ssh_config files behind it into one value,
// Options, with OpenSSH's meaning, texts and exit statuses.
//
//	opt, err := sshopt.Parse(os.Args[1:], sshopt.Environment{Args0: os.Args[0], Home: home, ...})
//
// The way of the values:
//
//	argv ─▶ flags (argv.go) ───────────────┐        first value set wins
//	-o   ─▶ lexer ─▶ keywords ─▶ parse…() ─┤─▶ Options ─▶ defaults ─▶ tokens ─▶ Options
//	files ─▶ Host, Match, Include ─▶ "  ───┘   (as written)                     (final)
//
// A keyword is a line of the table in keywords.go: its name, the function that reads its
// arguments, the field they go to, the words it knows. Nothing is computed before main: the table
// is data.
//
// The files are this program's own, then the user's, then the system's; with -F that one alone.
// The behaviour is that of OpenSSH 9.2p1, with the keywords and tokens that releases up to 10.x
// added. Names of algorithms that OpenSSH knows and the SSH library lacks are accepted and dropped.
//
// What this package doesn't know: the network, AWS, and what an SSM target is; the caller's
// Environment answers where a keyword needs them. It writes nothing: what is to be printed is in
// Options.Notices and in the error. There are no goroutines.
//
// Sources: ssh(1), ssh_config(5); ssh.c, readconf.c, misc.c, match.c of OpenSSH portable, named
// where a rule is taken from them.
package sshopt
