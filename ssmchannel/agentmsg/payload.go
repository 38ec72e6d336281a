package agentmsg

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// Flag is the payload of type FlagPayload: four bytes, big-endian.
type Flag uint32

// Flags (plugin: message/contracts.go, PayloadTypeFlag; other values are ignored).
const (
	// DisconnectToPort asks the agent to close the connection to the port.
	DisconnectToPort Flag = 1
	// TerminateSession asks the agent to end the session.
	TerminateSession Flag = 2
	// ConnectToPortError comes from the agent: a multiplexed connection failed.
	ConnectToPortError Flag = 3
)

// AppendFlag appends the payload of a flag message to dst.
func AppendFlag(dst []byte, f Flag) []byte {
	return binary.BigEndian.AppendUint32(dst, uint32(f))
}

// ParseFlag reads the payload of a flag message.
func ParseFlag(payload []byte) (Flag, error) {
	if len(payload) != 4 {
		return 0, fmt.Errorf("agentmsg: flag: %w", ErrFormat)
	}
	return Flag(binary.BigEndian.Uint32(payload)), nil
}

// TerminalSize is the payload of type Size (plugin: message/contracts.go,
// SizeData).
type TerminalSize struct {
	Cols uint32 `json:"cols"`
	Rows uint32 `json:"rows"`
}

// ParseTerminalSize reads the payload of type Size.
func ParseTerminalSize(payload []byte) (TerminalSize, error) {
	return parseJSON[TerminalSize]("terminal size", payload)
}

// ChannelClosedPayload is the payload of a channel_closed message (plugin:
// message/clientmessage.go, ChannelClosed).
type ChannelClosedPayload struct {
	MessageID     string `json:"MessageId"`
	CreatedDate   string
	DestinationID string `json:"DestinationId"`
	SessionID     string `json:"SessionId"`
	MessageType   MessageType
	SchemaVersion int
	// Output is the agent's or service's reason for the user, empty normally.
	Output string
}

// ParseChannelClosed reads the payload of a channel_closed message.
func ParseChannelClosed(payload []byte) (ChannelClosedPayload, error) {
	return parseJSON[ChannelClosedPayload]("channel closed", payload)
}

// AgentSessionStatePayload is the payload of an agent_session_state message
// (agent: session/contracts/model.go, AgentSessionStateContent).
type AgentSessionStatePayload struct {
	SchemaVersion int
	SessionState  string // "Connected" or "Terminating"
	SessionID     string `json:"SessionId"`
}

// OpenDataChannel is the first message on a fresh websocket: JSON in a text
// message, sent by the client and by the agent (plugin: service/service.go,
// OpenDataChannelInput; agent: session/service/api.go, OpenDataChannelInput).
type OpenDataChannel struct {
	MessageSchemaVersion string `json:"MessageSchemaVersion"`
	RequestID            string `json:"RequestId"`
	TokenValue           string `json:"TokenValue"`
	ClientID             string `json:"ClientId"`
	ClientInstanceID     string `json:"ClientInstanceId,omitempty"` // agent only
	ClientVersion        string `json:"ClientVersion,omitempty"`    // client only
}

// OpenSchemaVersion is OpenDataChannel's MessageSchemaVersion (plugin:
// config/config.go).
const OpenSchemaVersion = "1.0"

// ParseOpenDataChannel reads the first message of a websocket.
func ParseOpenDataChannel(text []byte) (OpenDataChannel, error) {
	return parseJSON[OpenDataChannel]("open data channel", text)
}

// MarshalPayload returns the JSON of one of this package's payload types.
func MarshalPayload(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("agentmsg: %w", err)
	}
	return b, nil
}
