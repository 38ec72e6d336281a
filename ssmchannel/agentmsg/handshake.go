package agentmsg

import (
	"encoding/json"
	"fmt"
	"time"
)

// Names of the handshake's actions (plugin: message/contracts.go, ActionType).
const (
	SessionTypeAction   = "SessionType"
	KMSEncryptionAction = "KMSEncryption"
)

// Session types (agent: appconfig/constants.go, PluginName constants).
const (
	PortSession           = "Port"
	StandardStreamSession = "Standard_Stream"
	InteractiveSession    = "InteractiveCommands"
	NonInteractiveSession = "NonInteractiveCommands"
)

// ActionStatus is the client's verdict on a requested action. Every value but
// ActionSuccess makes the agent cancel the session (agent:
// session/datachannel/datachannel.go, handleHandshakeResponse).
type ActionStatus int

// Action statuses (plugin: message/contracts.go).
const (
	ActionSuccess     ActionStatus = 1
	ActionFailed      ActionStatus = 2
	ActionUnsupported ActionStatus = 3
)

// HandshakeRequest is the agent's first stream message (plugin:
// message/contracts.go, HandshakeRequestPayload).
type HandshakeRequest struct {
	AgentVersion           string
	RequestedClientActions []RequestedAction
}

// RequestedAction is one action that the agent asks of the client.
// ActionParameters is a [SessionTypeParameters] or a [KMSParameters].
type RequestedAction struct {
	ActionType       string
	ActionParameters json.RawMessage
}

// SessionTypeParameters goes with SessionTypeAction. Properties is null for all
// session types but Port.
type SessionTypeParameters struct {
	SessionType string
	Properties  *PortProperties
}

// PortProperties are the document's properties of a Port session; numbers are
// strings (plugin: sessionmanagerplugin/session/portsession/portsession.go,
// PortParameters).
type PortProperties struct {
	PortNumber          string `json:"portNumber"`
	Type                string `json:"type,omitempty"`
	LocalPortNumber     string `json:"localPortNumber,omitempty"`
	Host                string `json:"host,omitempty"`
	LocalUnixSocket     string `json:"localUnixSocket,omitempty"`
	LocalConnectionType string `json:"localConnectionType,omitempty"`
}

// KMSParameters goes with KMSEncryptionAction. Challenge is sent by agents from
// 3.3.808 on; it enters the encryption context unchanged.
type KMSParameters struct {
	KMSKeyID  string `json:"KMSKeyId"`
	Challenge string `json:"Challenge,omitempty"`
}

// HandshakeResponse answers a HandshakeRequest. The agent reads one response in
// its life: a lost one is retransmitted as it is, never made anew (plugin:
// message/contracts.go, HandshakeResponsePayload).
type HandshakeResponse struct {
	ClientVersion          string
	ProcessedClientActions []ProcessedAction
	Errors                 []string
}

// ProcessedAction is the answer to one RequestedAction. ActionResult is null for
// SessionTypeAction and a [KMSResult] for KMSEncryptionAction.
type ProcessedAction struct {
	ActionType   string
	ActionStatus ActionStatus
	ActionResult any
	Error        string
}

// KMSResult carries the data key for an encrypted session (plugin:
// message/contracts.go, KMSEncryptionResponse).
type KMSResult struct {
	KMSCipherTextKey         []byte // the key as KMS has encrypted it
	KMSCipherTextHash        []byte // unused by both peers
	ChallengeAcknowledgement bool   // the challenge was put into the context
}

// HandshakeComplete ends the handshake: data may flow (plugin:
// message/contracts.go, HandshakeCompletePayload).
type HandshakeComplete struct {
	HandshakeTimeToComplete time.Duration // nanoseconds on the wire
	CustomerMessage         string        // to be shown to the user
}

// EncryptionChallenge is the payload of both challenge messages (plugin:
// message/contracts.go, EncryptionChallengeRequest and …Response).
type EncryptionChallenge struct {
	Challenge []byte // base64 on the wire
}

// ParseHandshakeRequest reads the payload of type HandshakeRequestPayload.
func ParseHandshakeRequest(payload []byte) (HandshakeRequest, error) {
	return parseJSON[HandshakeRequest]("handshake request", payload)
}

// ParseHandshakeResponse reads the payload of type HandshakeResponsePayload.
func ParseHandshakeResponse(payload []byte) (HandshakeResponse, error) {
	return parseJSON[HandshakeResponse]("handshake response", payload)
}

// ParseHandshakeComplete reads the payload of type HandshakeCompletePayload.
func ParseHandshakeComplete(payload []byte) (HandshakeComplete, error) {
	return parseJSON[HandshakeComplete]("handshake complete", payload)
}

// ParseEncryptionChallenge reads the payload of types EncChallengeRequest and
// EncChallengeResponse.
func ParseEncryptionChallenge(payload []byte) (EncryptionChallenge, error) {
	return parseJSON[EncryptionChallenge]("encryption challenge", payload)
}

// SessionType reads the parameters of a SessionTypeAction.
func (a *RequestedAction) SessionType() (SessionTypeParameters, error) {
	return parseJSON[SessionTypeParameters]("session type", a.ActionParameters)
}

// KMS reads the parameters of a KMSEncryptionAction.
func (a *RequestedAction) KMS() (KMSParameters, error) {
	return parseJSON[KMSParameters]("kms parameters", a.ActionParameters)
}

// parseJSON decodes a payload; what names it in the error.
func parseJSON[T any](what string, payload []byte) (T, error) {
	var v T
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, fmt.Errorf("agentmsg: %s: %w", what, err)
	}
	return v, nil
}
