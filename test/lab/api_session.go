package lab

import (
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Compiled by their first use: the lab is part of the program, and every start of that would pay 0.3 ms.
var (
	documentName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-zA-Z0-9_\-.:/]{3,128}$`) })
	portNumber   = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9]{1,5}$`) })
)

// documents are the session documents that the stand-in has, with their parameters and defaults.
var documents = map[string]map[string]string{
	"AWS-StartSSHSession":                        {"portNumber": "22"},
	"AWS-StartPortForwardingSession":             {"portNumber": "80", "localPortNumber": "0"},
	"AWS-StartPortForwardingSessionToRemoteHost": {"portNumber": "80", "localPortNumber": "0", "host": "localhost"},
	ownForwarding:                                {"portNumber": "22"},
	ownShell:                                     {"portNumber": "22"},
	"":                                           {},
	runShell:                                     {},
	interactiveCommand:                           {"command": ""},
	nonInteractive:                               {"command": ""},
	separateOutput:                               {"command": ""},
}

// streamAnswer is what StartSession and ResumeSession return.
type streamAnswer struct {
	SessionID  string `json:"SessionId"`
	StreamURL  string `json:"StreamUrl"`
	TokenValue string
}

type startRequest struct {
	Target       string
	DocumentName string
	Parameters   map[string][]string
	Reason       string
}

func (l *Lab) startSession(in startRequest) (any, error) {
	if len(in.Target) < 1 || len(in.Target) > 400 || len(in.Reason) > 256 {
		return nil, &refusal{400, "ValidationException", "1 validation error detected: Value at 'target' failed to satisfy constraint"}
	}
	params, err := parameters(in)
	if err != nil {
		return nil, err
	}
	node := l.node(in.Target)
	if node == nil || !node.online() {
		return nil, &refusal{400, "TargetNotConnected", in.Target + " is not connected."}
	}
	s := l.newSession(node, in, params)
	if err := node.startWorker(s); err != nil {
		s.over(stateFailed)
		return nil, &refusal{400, "TargetNotConnected", in.Target + " is not connected."}
	}
	l.count.start.Add(1)
	return l.stream(s), nil
}

// parameters checks the document and returns its parameters with the defaults filled in.
func parameters(in startRequest) (map[string]string, error) {
	known, ok := documents[in.DocumentName]
	if in.DocumentName != "" && !documentName().MatchString(in.DocumentName) {
		return nil, &refusal{400, "ValidationException", "1 validation error detected: Value at 'documentName' failed to satisfy constraint"}
	}
	if !ok {
		return nil, &refusal{400, "InvalidDocument", "Document with name " + in.DocumentName + " does not exist."}
	}
	params := make(map[string]string)
	for name, value := range known {
		params[name] = value
	}
	for name, values := range in.Parameters {
		if _, ok := known[name]; !ok || len(values) != 1 {
			return nil, &refusal{400, "InvalidParameters", "Parameter " + name + " is not defined in the document or not one value."}
		}
		params[name] = values[0]
	}
	if command, ok := params["command"]; ok && command == "" {
		return nil, &refusal{400, "InvalidParameters", "Parameter command is required."}
	}
	if _, ok := known["portNumber"]; !ok {
		return params, nil
	}
	if port, err := strconv.Atoi(params["portNumber"]); err != nil || !portNumber().MatchString(params["portNumber"]) || port < 1 || port > 65535 {
		return nil, &refusal{400, "InvalidParameters", "Parameter portNumber does not match the allowed pattern."}
	}
	return params, nil
}

func (l *Lab) newSession(node *Node, in startRequest, params map[string]string) *session {
	s := &session{
		id: "lab-" + randomHex(17), target: in.Target, document: in.DocumentName, owner: ownerARN, reason: in.Reason,
		cell: "AAEAA+" + randomHex(12) + "/Lab+" + randomHex(6) + "/1=", params: params,
		started: time.Now(), node: node, state: stateConnecting, tokens: make(map[string]token),
	}
	s.channel = newChannel(l, s)
	s.idle = time.AfterFunc(l.opts.Timing.Idle, func() { l.expire(s, idleNotice) })
	if l.opts.Timing.MaxDuration > 0 {
		s.age = time.AfterFunc(l.opts.Timing.MaxDuration, func() { l.expire(s, ageNotice) })
	}
	l.sessions.add(s)
	return s
}

func (l *Lab) stream(s *session) streamAnswer {
	return streamAnswer{SessionID: s.id, StreamURL: l.streamURL(s), TokenValue: s.newToken(false)}
}

type sessionRequest struct {
	SessionID string `json:"SessionId"`
}

func (l *Lab) resumeSession(in sessionRequest) (any, error) {
	l.count.resume.Add(1)
	s := l.sessions.find(in.SessionID)
	if s == nil {
		return nil, &refusal{400, "DoesNotExistException", "Session " + in.SessionID + " does not exist."}
	}
	if live, ending := s.live(); !live || ending || l.faults.now.Load().EmptyResumeToken {
		return streamAnswer{SessionID: s.id}, nil // "may be empty": the plugin takes that for timed out
	}
	s.touch(l.opts.Timing.Idle)
	return l.stream(s), nil
}

// terminateSession succeeds for every id, known or not, as AWS has been seen to do.
func (l *Lab) terminateSession(in sessionRequest) (any, error) {
	l.count.terminate.Add(1)
	if s := l.sessions.find(in.SessionID); s != nil {
		s.note(StepTerminate)
		l.terminate(s, "")
	}
	return sessionRequest{in.SessionID}, nil
}

// terminate ends a session from the service's side: both ends hear channel_closed, the worker over
// the control channel too, and reports when it has gone.
func (l *Lab) terminate(s *session, output string) {
	if !s.terminating() {
		return
	}
	s.channel.announceClosed(output)
	if !s.node.terminateWorker(s.id) {
		s.over(stateTerminated) // no worker is left that could confirm
	}
}

func (l *Lab) expire(s *session, notice string) { l.terminate(s, notice) }

type filter struct {
	Key    string   `json:"key"`
	Value  string   `json:"value"`
	Values []string `json:"Values"`
}

type describeRequest struct {
	State      string
	Filters    []filter
	MaxResults int
	NextToken  string
}

// sessionItem is an element of DescribeSessions' answer. Dates are epoch seconds.
type sessionItem struct {
	SessionID                                       string `json:"SessionId"`
	Target, Status, Owner, DocumentName, AccessType string
	Reason                                          string `json:",omitempty"`
	StartDate                                       float64
	EndDate                                         float64 `json:",omitempty"`
}

func (l *Lab) describeSessions(in describeRequest) (any, error) {
	if in.State != "Active" && in.State != "History" {
		return nil, &refusal{400, "ValidationException", "1 validation error detected: Value at 'state' failed to satisfy constraint"}
	}
	lag := time.Duration(l.faults.now.Load().ListLagMillis) * time.Millisecond
	items := []sessionItem{}
	for _, s := range slices.Backward(l.sessions.all()) {
		if time.Since(s.started) < lag {
			continue
		}
		live, _ := s.live()
		item := s.item()
		matches, err := item.matches(in.Filters)
		if err != nil {
			return nil, err
		}
		if live == (in.State == "Active") && matches {
			items = append(items, item)
		}
	}
	return page(items, in)
}

// page is the part of the list that was asked for. What comes between two calls may move it by an element, as
// it may AWS's.
func page(items []sessionItem, in describeRequest) (any, error) {
	from := 0
	if in.NextToken != "" {
		var err error
		if from, err = strconv.Atoi(in.NextToken); err != nil || from < 0 {
			return nil, &refusal{400, "InvalidNextToken", "The specified token isn't valid."}
		}
	}
	size := in.MaxResults
	if size <= 0 || size > historyAtMost {
		size = pageSize
	}
	items = items[min(from, len(items)):]
	answer := map[string]any{"Sessions": items}
	if len(items) > size {
		answer["Sessions"], answer["NextToken"] = items[:size], strconv.Itoa(from+size)
	}
	return answer, nil
}

func (s *session) item() sessionItem {
	state, ended := s.status()
	item := sessionItem{SessionID: s.id, Target: s.target, Status: state, Owner: s.owner, DocumentName: s.document,
		AccessType: "Standard", Reason: s.reason, StartDate: epoch(s.started)}
	if !ended.IsZero() {
		item.EndDate = epoch(ended)
	}
	return item
}

// matches applies the filters of DescribeSessions.
func (i sessionItem) matches(filters []filter) (bool, error) {
	for _, f := range filters {
		ok := false
		switch f.Key {
		case "Target":
			ok = i.Target == f.Value
		case "Owner":
			ok = i.Owner == f.Value
		case "Status":
			ok = i.Status == f.Value
		case "SessionId":
			ok = i.SessionID == f.Value
		case "AccessType":
			ok = i.AccessType == f.Value
		case "InvokedAfter", "InvokedBefore":
			t, err := time.Parse(time.RFC3339, f.Value)
			if err != nil {
				return false, &refusal{400, "ValidationException", "the date is not ISO 8601"}
			}
			ok = (i.StartDate >= epoch(t)) == (f.Key == "InvokedAfter")
		default:
			return false, &refusal{400, "InvalidFilterKey", "The specified key isn't valid."}
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

func (l *Lab) connectionStatus(in struct{ Target string }) (any, error) {
	status := "notconnected"
	if node := l.node(in.Target); node != nil && node.online() {
		status = "connected"
	}
	return map[string]string{"Target": in.Target, "Status": status}, nil
}

// instanceItem is an element of DescribeInstanceInformation's answer.
type instanceItem struct {
	InstanceID                                                                                  string `json:"InstanceId"`
	PingStatus, AgentVersion, PlatformType, PlatformName, ResourceType, ComputerName, IPAddress string
	LastPingDateTime                                                                            float64
}

func (l *Lab) describeInstances(in describeRequest) (any, error) {
	items := []instanceItem{}
	for _, n := range l.nodes {
		item := instanceItem{InstanceID: n.id, PingStatus: "Online", AgentVersion: l.opts.AgentVersion, PlatformType: "Linux",
			PlatformName: "Debian", ResourceType: "ManagedInstance", ComputerName: n.id, IPAddress: "127.0.0.1", LastPingDateTime: epoch(time.Now())}
		if !n.online() {
			item.PingStatus = "ConnectionLost"
		}
		matches := true
		for _, f := range in.Filters {
			switch f.Key {
			case "InstanceIds":
				matches = matches && slices.Contains(f.Values, item.InstanceID)
			case "PingStatus":
				matches = matches && slices.Contains(f.Values, item.PingStatus)
			}
		}
		if matches {
			items = append(items, item)
		}
	}
	return map[string]any{"InstanceInformationList": items}, nil
}

func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
