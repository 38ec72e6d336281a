// Package bench measures the program against the official plugin behind stock ssh, and against stock
// ssh as its own mux client: as `make build` makes it, over the lab, turn by turn with its peers, so
// that whatever else the machine does falls on all of them alike.
//
//	make bench                                                              all of it, with one table at the end
//	go test -run '^$' -bench 'MuxClient/-O_check/^0' -benchtime 10x ./test/bench
//
// One iteration is one turn of each; their order is by chance. Results are ratios of ours to the peer,
// turn by turn, as the median with the quartiles. Calls stand for themselves: before each there is a
// pause of a round trip and a little more, in which a master may get ready for the next.
//
//	BenchmarkColdStart    `true` where there is no connection: ours with the master that it makes, ours
//	                      without, ssh + plugin, ssh + AWS CLI + plugin
//	BenchmarkMuxClient    `true` and -O check through a living master: ours, stock ssh on a master of
//	                      stock ssh whose connection runs through the same link, stock ssh on ours
//	BenchmarkUpload       a file through a living master of ours, and through ssh + plugin; what `true`
//	BenchmarkDownload     takes in the same way is taken off
//	BenchmarkIdle         how often anything runs while nothing happens
//	BenchmarkMemory       maximum of the client, resident of the master
//	BenchmarkAllocations  of the data channel's code, by message
//
// Processor time is user and system of whole client sides: our client and our master, ssh and the
// plugin. What starts the session for the plugin isn't counted, in the plugin's favour.
//
// A process is started by the small program in usage, since the maximum resident set of a child begins
// with that of its parent (Linux: fs/exec.c, exec_mmap), and a test binary is larger than what is
// measured.
//
// What this package doesn't know: AWS, and how ratios ought to be. Times are printed beside the goals
// and never asserted; only memory is, since it depends on nothing but the program.
package bench
