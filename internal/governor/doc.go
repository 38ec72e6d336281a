// Package governor spreads calls to a service that limits their rate, over all processes of a user.
//
//	g := governor.At(path) // one file for each thing whose rate is limited: account and region
//	err := g.Turn(ctx, waiting)
//	// the call
//	g.Granted()                    // it was served; or
//	err = g.Refused(ctx, waiting)  // it came too fast: note that, and wait for another turn
//
// The limit isn't known. The governor begins fast, slows down when the service refuses and speeds up
// again while it doesn't, around the rate that is served. Turns are given in the order in which they
// are asked for; a call that was refused is the next.
//
// The state is a small file that every call of this package reads and writes under flock(2) for some
// microseconds. Nothing in it outlives its use: a file that can't be read is begun anew, as is one whose lock
// a stopped process keeps. The schedule follows a clock that is put back. A process that dies costs its one turn.
//
// Where the file can't be written, or has no locks, each process slows down by itself.
package governor
