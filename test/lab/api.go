package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	targetPrefix  = "AmazonSSM." // X-Amz-Target of the JSON 1.1 protocol
	jsonType      = "application/x-amz-json-1.1"
	bodyLimit     = 1 << 20
	accountID     = "123456789012" // the account of AWS's own examples
	ownerARN      = "arn:aws:sts::" + accountID + ":assumed-role/lab/lab"
	historyAtMost = 200 // DescribeSessions' upper bound for MaxResults
	pageSize      = 50  // without it; AWS's own is not documented
)

// operation is one call: the decoded request in, the answer out.
type operation func(l *Lab, body []byte) (any, error)

// operations are the calls that the stand-in answers (SSM API reference, by name).
var operations = map[string]operation{
	"StartSession":                bind((*Lab).startSession),
	"ResumeSession":               bind((*Lab).resumeSession),
	"TerminateSession":            bind((*Lab).terminateSession),
	"DescribeSessions":            bind((*Lab).describeSessions),
	"GetConnectionStatus":         bind((*Lab).connectionStatus),
	"DescribeInstanceInformation": bind((*Lab).describeInstances),
}

// bind turns a method with a typed request into an operation.
func bind[In any](call func(*Lab, In) (any, error)) operation {
	return func(l *Lab, body []byte) (any, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, &refusal{400, "SerializationException", ""}
		}
		return call(l, in)
	}
}

// serveAPI answers the SSM API, KMS and sts:GetCallerIdentity.
func (l *Lab) serveAPI(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		return // the caller has gone
	}
	w.Header().Set("X-Amzn-RequestId", requestID())
	service, calls := "ssm", operations
	name, known := strings.CutPrefix(r.Header.Get("X-Amz-Target"), targetPrefix)
	if !known {
		service, calls = "kms", keyOperations
		name, known = strings.CutPrefix(name, keyTargetPrefix)
	}
	if !known {
		l.serveSTS(w, r, body)
		return
	}
	l.opts.Logf(2, "lab: api: %s", name)
	fault, faulty := l.faults.api(name)
	if faulty && !l.suffer(r.Context(), w, fault) {
		return
	}
	if err := l.keys.verify(r, body, service); err != nil {
		l.refuse(w, err)
		return
	}
	call, ok := calls[name]
	if !ok {
		l.refuse(w, &refusal{400, "UnknownOperationException", ""})
		return
	}
	answer, err := call(l, body)
	if faulty && !pause(r.Context(), fault.LateMillis) {
		return
	}
	switch {
	case err != nil:
		l.refuse(w, err)
	case faulty && fault.Done:
		l.refuse(w, fault.refusal())
	case faulty && fault.LoseAnswer:
		loseConnection(w)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

// loseConnection drops the caller's connection without an answer.
func loseConnection(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
}

// suffer makes the call meet its fault; false means that it ends there.
func (l *Lab) suffer(ctx context.Context, w http.ResponseWriter, f APIFault) bool {
	if f.Hang {
		<-ctx.Done()
		return false
	}
	if !pause(ctx, f.DelayMillis) {
		return false
	}
	if f.EmptyAnswer {
		w.Header().Set("Content-Type", jsonType)
		w.WriteHeader(http.StatusOK)
		return false
	}
	if f.Code == "" || f.Done {
		return true
	}
	l.refuse(w, f.refusal())
	return false
}

// refusal is the answer that a fault with a code gives.
func (f APIFault) refusal() error {
	r := usual(f.Code)
	if f.Status != 0 {
		r.status = f.Status
	}
	if f.Message != "" {
		r.message = f.Message
	}
	return &r
}

// pause waits; false when the caller has gone meanwhile.
func pause(ctx context.Context, millis int) bool {
	if millis <= 0 {
		return true
	}
	select {
	case <-time.After(time.Duration(millis) * time.Millisecond):
		return true
	case <-ctx.Done():
		return false
	}
}

// usual returns the status and text under which AWS reports a code.
func usual(code string) refusal {
	known := []refusal{
		{400, "ThrottlingException", "Rate exceeded"},
		{400, "ExpiredTokenException", "The security token included in the request is expired"},
		{400, "AccessDeniedException", "User: " + ownerARN + " is not authorized to perform: this operation because no identity-based policy allows it"},
		{400, "UnrecognizedClientException", "The security token included in the request is invalid."},
		{400, "TargetNotConnected", "the target is not connected."},
		{400, "InvalidDocument", "Document with this name does not exist."},
		{400, "DoesNotExistException", "Session does not exist."},
		{500, "InternalServerError", ""},
		{503, "ServiceUnavailable", ""},
	}
	for _, r := range known {
		if r.code == code {
			return r
		}
	}
	return refusal{400, code, ""}
}

// refuse answers with an error in the form of JSON 1.1: __type and message.
func (l *Lab) refuse(w http.ResponseWriter, err error) {
	l.count.apiErrors.Add(1)
	var r *refusal
	if !errors.As(err, &r) {
		r = &refusal{500, "InternalServerError", err.Error()}
	}
	key := "message"
	if r.code == "AccessDeniedException" {
		key = "Message" // IAM's answers spell it so
	}
	writeJSON(w, r.status, map[string]string{"__type": r.code, key: r.message})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", jsonType)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// serveSTS answers GetCallerIdentity, the only operation of the query protocol that is known here.
func (l *Lab) serveSTS(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Type", "text/xml")
	if !strings.Contains(string(body), "Action=GetCallerIdentity") {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>InvalidAction</Code><Message>unknown to the lab</Message></Error></ErrorResponse>`)
		return
	}
	if err := l.keys.verify(r, body, "sts"); err != nil {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>refused</Message></Error></ErrorResponse>`)
		return
	}
	fmt.Fprintf(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>`+
		`<Arn>%s</Arn><UserId>AROALABLABLABLABLABLA:lab</UserId><Account>%s</Account></GetCallerIdentityResult>`+
		`<ResponseMetadata><RequestId>%s</RequestId></ResponseMetadata></GetCallerIdentityResponse>`, ownerARN, accountID, requestID())
}

func requestID() string {
	return strings.Join([]string{randomHex(8), randomHex(4), randomHex(4), randomHex(4), randomHex(12)}, "-")
}
