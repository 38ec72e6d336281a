package lab

import "sync/atomic"

// Counts is what the lab has seen since Start. The JSON names are those of the control endpoint.
type Counts struct {
	StartSession     int64 `json:"start_session"`     // calls answered with a session
	ResumeSession    int64 `json:"resume_session"`    // calls
	TerminateSession int64 `json:"terminate_session"` // calls
	DataKeys         int64 `json:"data_keys"`         // GenerateDataKey calls answered with a key
	APIErrors        int64 `json:"api_errors"`        // calls answered with an error, injected ones included
	LiveSessions     int   `json:"live_sessions"`     // not yet Terminated or Failed
	EndingSessions   int   `json:"ending_sessions"`   // those of them whose termination is under way
	LiveWorkers      int64 `json:"live_workers"`
	DataChannels     int64 `json:"data_channels"` // client websockets that presented a valid token
	SignedChannels   int64 `json:"signed_channels"`
	Connects         int64 `json:"connects"` // TCP connections of clients to API and gateway

	MessagesUp     int64 `json:"messages_up"`   // input_stream_data from clients, repeats included
	MessagesDown   int64 `json:"messages_down"` // output_stream_data from agents, repeats included
	BytesUp        int64 `json:"bytes_up"`      // their payload
	BytesDown      int64 `json:"bytes_down"`
	AcksUp         int64 `json:"acks_up"`
	AcksDown       int64 `json:"acks_down"`
	RepeatsUp      int64 `json:"repeats_up"` // retransmissions, by sequence number
	RepeatsDown    int64 `json:"repeats_down"`
	Pauses         int64 `json:"pauses"`          // pause_publication sent, either way
	EarlyDiscarded int64 `json:"early_discarded"` // input acknowledged and lost before the handshake was complete
	EarlyRefused   int64 `json:"early_refused"`   // input refused before the port was dialled
}

// counters is the live form of Counts.
type counters struct {
	start, resume, terminate   atomic.Int64
	dataKeys, apiErrors        atomic.Int64
	workers                    atomic.Int64
	channels, signed, connects atomic.Int64
	up, down                   pathCounters
	pauses                     atomic.Int64
	discarded, refused         atomic.Int64
}

// pathCounters counts one direction.
type pathCounters struct{ messages, bytes, acks, repeats atomic.Int64 }

func (c *counters) snapshot() Counts {
	return Counts{
		StartSession: c.start.Load(), ResumeSession: c.resume.Load(), TerminateSession: c.terminate.Load(),
		DataKeys: c.dataKeys.Load(), APIErrors: c.apiErrors.Load(), LiveWorkers: c.workers.Load(),
		DataChannels: c.channels.Load(), SignedChannels: c.signed.Load(), Connects: c.connects.Load(),
		MessagesUp: c.up.messages.Load(), MessagesDown: c.down.messages.Load(),
		BytesUp: c.up.bytes.Load(), BytesDown: c.down.bytes.Load(),
		AcksUp: c.up.acks.Load(), AcksDown: c.down.acks.Load(),
		RepeatsUp: c.up.repeats.Load(), RepeatsDown: c.down.repeats.Load(),
		Pauses: c.pauses.Load(), EarlyDiscarded: c.discarded.Load(), EarlyRefused: c.refused.Load(),
	}
}
