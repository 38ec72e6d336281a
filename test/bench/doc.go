// Package bench measures the program against stock ssh: as `make build` makes it, over the lab, turn
// by turn with its peers, so that whatever else the machine does falls on all of them alike.
//
//	make bench                                                          all of it
//	go test -run '^$' -bench 'MuxClient/check/^0ms' -benchtime 100x ./test/bench
//
// One iteration is one call of each client, in an order by chance:
//
//	ours         the program on a master of its own
//	same-master  stock ssh on that same master: what the client alone is worth
//	own-master   stock ssh on a master of stock ssh, whose connection runs through the same link
//
// Results are ratios of ours to a peer, call by call: the median is a metric, the quartiles are in the
// log. Calls stand for themselves: before each there is a pause of a round trip and a little more, in
// which a master may get ready for the next.
//
// A process is started by the small program in usage, since the maximum resident set of a child begins
// with that of its parent (Linux: fs/exec.c, exec_mmap), and a test binary is larger than what is
// measured.
//
// What this package doesn't know: AWS, and how ratios ought to be. Times are printed and never
// asserted; only memory is, since it depends on nothing but the program.
package bench
