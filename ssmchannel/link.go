package ssmchannel

import (
	"context"
	"time"
)

// link is one websocket, or what a test puts in its place. A connection has one
// after the other. Read and Quiet are called by one goroutine, Write and Flush by another,
// the rest by any.
type link interface {
	// Read returns the next message, valid until the next call.
	Read() ([]byte, error)
	// Quiet tells the reader's intention not to read until Quiet(false), so that the system need not
	// wake anybody up for what comes in.
	Quiet(on bool)
	// Write queues one binary message. It does not block and keeps no
	// reference to the bytes.
	Write(message []byte) error
	// Flush writes what is queued.
	Flush() error
	// Ping sends a ping and waits for its answer.
	Ping(ctx context.Context) error
	// LastRead is when something last came in.
	LastRead() time.Time
	// Close ends the link at once; every other method returns.
	Close()
}

// linkEvents are the calls that a link makes to its owner. Both must not block.
type linkEvents struct {
	// beforeRead is called when all that has come in is processed and the link
	// is about to wait for more.
	beforeRead func()
	// queued is called when the link itself has queued bytes (a pong), which
	// leave with the next Flush.
	queued func()
}

// dialer opens a link to the session's stream, the opening message included.
type dialer func(ctx context.Context, s Session, events linkEvents) (link, error)
