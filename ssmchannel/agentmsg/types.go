package agentmsg

// MessageType is the kind of an agent message.
type MessageType string

// Message types (plugin: message/clientmessage.go; agent:
// session/contracts/model.go).
const (
	// InputStreamData carries numbered payloads from the client to the agent.
	InputStreamData MessageType = "input_stream_data"
	// OutputStreamData carries numbered payloads from the agent to the client.
	OutputStreamData MessageType = "output_stream_data"
	// Acknowledge names one received stream message; it is never acknowledged.
	Acknowledge MessageType = "acknowledge"
	// ChannelClosed comes from the service and ends the session.
	ChannelClosed MessageType = "channel_closed"
	// PausePublication comes from the service: the peer is not connected.
	PausePublication MessageType = "pause_publication"
	// StartPublication comes from the service: the peer is connected.
	StartPublication MessageType = "start_publication"
	// AgentSessionState goes from the agent to the service.
	AgentSessionState MessageType = "agent_session_state"
)

// PayloadType says how a stream message's payload is to be read.
type PayloadType uint32

// Payload types (plugin: message/contracts.go; agent:
// session/contracts/model.go).
const (
	// NoPayloadType stands in every message that is not a stream message.
	NoPayloadType PayloadType = 0
	// Output is bytes of the session, in both directions.
	Output PayloadType = 1
	// Error is defined by both peers and used by neither.
	Error PayloadType = 2
	// Size is a terminal size, see [TerminalSize].
	Size PayloadType = 3
	// Parameter is defined by both peers and used by neither.
	Parameter PayloadType = 4
	// HandshakeRequestPayload comes from the agent, see [HandshakeRequest].
	HandshakeRequestPayload PayloadType = 5
	// HandshakeResponsePayload answers it, see [HandshakeResponse].
	HandshakeResponsePayload PayloadType = 6
	// HandshakeCompletePayload ends the handshake, see [HandshakeComplete].
	HandshakeCompletePayload PayloadType = 7
	// EncChallengeRequest comes from the agent, see [EncryptionChallenge].
	EncChallengeRequest PayloadType = 8
	// EncChallengeResponse answers it, see [EncryptionChallenge].
	EncChallengeResponse PayloadType = 9
	// FlagPayload is a [Flag].
	FlagPayload PayloadType = 10
	// StdErr is bytes of a non-interactive command's standard error.
	StdErr PayloadType = 11
	// ExitCode is the text "EXIT_CODE: <n>" of a non-interactive command.
	ExitCode PayloadType = 12
)

// Bits of [Message.Flags] (plugin: message/clientmessage.go).
const (
	FlagSyn uint64 = 1 << 0
	FlagFin uint64 = 1 << 1
)

// AckFlags is what both peers put into an acknowledgement. Windows agents have
// been reported to refuse acknowledgements that carry SYN alone.
const AckFlags = FlagSyn | FlagFin

// SchemaVersion is the only schema version in use (plugin:
// message/messageparser.go).
const SchemaVersion = 1

// Lengths of the layout in the package comment (plugin:
// message/clientmessage.go, the ClientMessage_ constants).
const (
	// HeaderLength is the header length of every message made by a peer.
	HeaderLength = 116
	// ShortHeaderLength is the header length of messages that the service makes
	// itself: they have no payload type. Seen on channel_closed.
	ShortHeaderLength = 112
	// Overhead is what a message adds to its payload.
	Overhead = HeaderLength + lengthLength

	lengthLength = 4
	typeOffset   = 4
	typeLength   = 32
	schemaOffset = typeOffset + typeLength
	dateOffset   = 40
	numberOffset = 48
	flagsOffset  = 56
	idOffset     = 64
	digestOffset = 80
	payloadType  = 112
)

// intern returns the message type named by b, without allocating for the known ones.
func intern(b []byte) MessageType {
	switch string(b) {
	case string(InputStreamData):
		return InputStreamData
	case string(OutputStreamData):
		return OutputStreamData
	case string(Acknowledge):
		return Acknowledge
	case string(ChannelClosed):
		return ChannelClosed
	case string(PausePublication):
		return PausePublication
	case string(StartPublication):
		return StartPublication
	case string(AgentSessionState):
		return AgentSessionState
	}
	return MessageType(b)
}
