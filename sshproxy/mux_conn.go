package sshproxy

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"ssm-ssh/internal/fdpass"
)

// muxConn is one control connection: frames and descriptors in, frames out. One goroutine reads at a
// time; any may send.
type muxConn struct {
	*net.UnixConn
	in *fdpass.Receiver

	mu sync.Mutex // a frame is written in one piece
}

func newMuxConn(c *net.UnixConn) *muxConn {
	return &muxConn{UnixConn: c, in: fdpass.NewReceiver(c)}
}

// receive reads one frame, exactly: a byte more could be a descriptor's. io.EOF means that the peer
// has gone between two frames.
func (c *muxConn) receive() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > muxFrameLimit {
		return nil, fmt.Errorf("mux frame of %d bytes is over the limit of %d", size, muxFrameLimit)
	}
	frame := make([]byte, size)
	if _, err := io.ReadFull(c.in, frame); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return frame, nil
}

// send writes one message in one piece.
func (c *muxConn) send(m muxMessage) error {
	b, err := encodeMux(m)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.Write(b)
	return err
}
