// Package agentmsg encodes and decodes the messages of a Session Manager data
// channel. It is a codec only: no sockets, no goroutines, no state, nothing but
// the standard library.
//
// One websocket binary message carries one agent message. All integers are
// big-endian:
//
//	offset  length  field
//	     0       4  header length: offset of the payload length (116, or 112)
//	     4      32  message type, padded with spaces
//	    36       4  schema version (1)
//	    40       8  created date, milliseconds since the Unix epoch
//	    48       8  sequence number
//	    56       8  flags
//	    64      16  message id, a UUID with its halves swapped
//	    80      32  SHA-256 of the payload
//	   112       4  payload type (absent when the header length is 112)
//	   116       4  payload length
//	   120       n  payload
//
// [AppendMessage] and [Parse] convert whole messages without allocating. The
// payloads have their own pairs: [AppendAck] and [ParseAck] for acknowledgements,
// and Marshal/Parse functions for the rest, which is JSON but for the flag.
//
// The only thing that begins a connection and is not an agent message is
// [OpenDataChannel], a JSON text message.
//
// Sources: session-manager-plugin 1.3.0.0, files message/clientmessage.go,
// message/messageparser.go, message/contracts.go and service/service.go;
// amazon-ssm-agent 3.3, files agent/session/contracts/agentmessage.go and
// agent/session/contracts/model.go. In comments "plugin" and "agent" stand for
// the two. testdata/vectors.json holds messages made by the plugin's serializer.
package agentmsg
