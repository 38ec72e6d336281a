package lab

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A refusal is an error that the API answers in AWS's JSON form.
type refusal struct {
	status  int
	code    string
	message string
}

func (r *refusal) Error() string { return r.code + ": " + r.message }

const (
	algorithm  = "AWS4-HMAC-SHA256"
	amzDate    = "20060102T150405Z"
	clockSkew  = 5 * time.Minute // AWS's own tolerance for the date of a signature
	scopeParts = 5               // key id, date, region, service, "aws4_request"
)

// credentials are the made-up key pair that the lab hands out and accepts.
type credentials struct{ keyID, secret, region string }

// verify checks the Signature Version 4 of r, whose body is payload, for one of the services
// (AWS General Reference, "Create a signed AWS API request").
func (c credentials) verify(r *http.Request, payload []byte, services ...string) error {
	auth := r.Header.Get("Authorization")
	if auth == "" {
		return &refusal{400, "MissingAuthenticationTokenException", "Missing Authentication Token"}
	}
	fields, ok := strings.CutPrefix(auth, algorithm+" ")
	if !ok {
		return incomplete("the Authorization header is not " + algorithm)
	}
	values := make(map[string]string)
	for part := range strings.SplitSeq(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		values[name] = value
	}
	scope := strings.Split(values["Credential"], "/")
	if len(scope) != scopeParts || scope[4] != "aws4_request" {
		return incomplete("the credential scope is not complete")
	}
	switch {
	case scope[0] != c.keyID:
		return &refusal{400, "UnrecognizedClientException", "The security token included in the request is invalid."}
	case scope[2] != c.region || !slices.Contains(services, scope[3]):
		return mismatch(fmt.Sprintf("Credential should be scoped to a valid region and service, not '%s/%s'.", scope[2], scope[3]))
	}
	date, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return incomplete("the date is missing")
	}
	if d := time.Since(date); d > clockSkew || d < -clockSkew {
		return mismatch("Signature expired: " + r.Header.Get("X-Amz-Date"))
	}
	signed := strings.Split(values["SignedHeaders"], ";")
	if !slices.Contains(signed, "host") {
		return incomplete("the host header is not signed")
	}
	sum := sha256.Sum256(payload)
	for _, query := range canonicalQueries(r.URL.RawQuery) {
		if hmac.Equal([]byte(c.sign(r, query, signed, hex.EncodeToString(sum[:]), scope[1], scope[3])), []byte(values["Signature"])) {
			return nil
		}
	}
	return mismatch("The request signature we calculated does not match the signature you provided.")
}

func incomplete(text string) error {
	return &refusal{400, "IncompleteSignatureException", text}
}

func mismatch(text string) error {
	return &refusal{400, "InvalidSignatureException", text}
}

// canonicalQueries returns the forms under which signers put a query into the canonical request.
// They differ for the unescaped + and / of the stream URL's cell-number: most decode the query
// first, which makes a blank of the plus.
func canonicalQueries(raw string) []string {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return []string{raw}
	}
	literal, err := url.ParseQuery(strings.ReplaceAll(raw, "+", "%2B"))
	if err != nil {
		return []string{raw}
	}
	encode := func(v url.Values) string { return strings.ReplaceAll(v.Encode(), "+", "%20") }
	return []string{encode(values), encode(literal)}
}

// sign returns the hex signature that r should carry.
func (c credentials) sign(r *http.Request, query string, signed []string, payloadSHA, day, service string) string {
	var canonical strings.Builder
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", r.Method, path, query)
	for _, name := range signed {
		fmt.Fprintf(&canonical, "%s:%s\n", name, headerValue(r, name))
	}
	fmt.Fprintf(&canonical, "\n%s\n%s", strings.Join(signed, ";"), payloadSHA)
	sum := sha256.Sum256([]byte(canonical.String()))
	scope := strings.Join([]string{day, c.region, service, "aws4_request"}, "/")
	text := strings.Join([]string{algorithm, r.Header.Get("X-Amz-Date"), scope, hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + c.secret)
	for _, part := range []string{day, c.region, service, "aws4_request"} {
		key = keyed(key, part)
	}
	return hex.EncodeToString(keyed(key, text))
}

func headerValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return fmt.Sprint(r.ContentLength)
	}
	values := slices.Clone(r.Header.Values(name))
	for i, v := range values {
		values[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(values, ",")
}

func keyed(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
