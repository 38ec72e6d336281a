package ssmchannel

import (
	"encoding/binary"
	"fmt"
)

// A frame of smux version 1 is a header of eight bytes, little-endian, and data:
//
//	offset  length  field
//	     0       1  version (1)
//	     1       1  command
//	     2       2  length of the data
//	     4       4  stream id
//
// (xtaci/smux: frame.go). Frames stand in the byte stream of the session without
// regard to the borders of messages.
const (
	muxVersion     = 1
	muxHeaderBytes = 8
	// muxFrameBytes is the most data we send in one frame; the library's
	// default (smux: mux.go, DefaultConfig). Received frames may have more.
	muxFrameBytes = 32 << 10
)

type muxCommand byte

// Commands (smux: frame.go). A fifth, for windows, is of version 2.
const (
	muxSYN muxCommand = 0 // open a stream
	muxFIN muxCommand = 1 // the sender has closed it, for both directions
	muxPSH muxCommand = 2 // data
	muxNOP muxCommand = 3 // keepalive
)

type muxHeader struct {
	command muxCommand
	length  uint16
	stream  uint32
}

func appendMuxHeader(dst []byte, h muxHeader) []byte {
	dst = append(dst, muxVersion, byte(h.command))
	dst = binary.LittleEndian.AppendUint16(dst, h.length)
	return binary.LittleEndian.AppendUint32(dst, h.stream)
}

// parseMuxHeader reads a header of muxHeaderBytes. Only data frames have a length.
func parseMuxHeader(b []byte) (muxHeader, error) {
	h := muxHeader{
		command: muxCommand(b[1]),
		length:  binary.LittleEndian.Uint16(b[2:]),
		stream:  binary.LittleEndian.Uint32(b[4:]),
	}
	switch {
	case b[0] != muxVersion:
		return h, fmt.Errorf("%w: smux frame of version %d", ErrProtocol, b[0])
	case h.command > muxNOP:
		return h, fmt.Errorf("%w: smux command %d", ErrProtocol, h.command)
	case h.command != muxPSH && h.length != 0:
		return h, fmt.Errorf("%w: smux command %d with data", ErrProtocol, h.command)
	}
	return h, nil
}
