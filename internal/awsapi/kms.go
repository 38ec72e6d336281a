package awsapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// The one call to KMS is made here by hand, by the JSON 1.1 protocol and with the SDK's signer and
// retry rules: the SDK's client of KMS would cost every start of the program time and memory.

const (
	kmsService   = "kms" // in signatures and host names
	kmsID        = "KMS" // in AWS_ENDPOINT_URL_KMS and in the profile's services
	kmsTarget    = "TrentService.GenerateDataKey"
	dataKeyBytes = 64 // the agent's key and the client's (the official plugin's kmsservice.go)
	// kmsAnswerLimit is far above any answer: an error's text or two base64 strings.
	kmsAnswerLimit = 64 << 10
	// maxBlobBytes is the most that KMS returns for a data key (API reference, GenerateDataKey).
	maxBlobBytes = 6144
)

var errNoDataKey = errors.New("the answer holds no data key")

// dataKey is the answer of GenerateDataKey (KMS API reference). Blobs are base64.
type dataKey struct {
	CiphertextBlob, Plaintext []byte
}

// GenerateDataKey returns a data key of 64 bytes and the same encrypted under a key of KMS. The
// encryption context is bound to it: whoever decrypts it must present the same. The caller erases
// the plaintext after use.
func (c *Client) GenerateDataKey(ctx context.Context, keyID string, encryptionContext map[string]string) (plaintext, ciphertext []byte, err error) {
	call := call{op: "get a data key", service: kmsService, operation: "GenerateDataKey"}
	body, err := json.Marshal(struct {
		KeyId             string //nolint:revive // as KMS spells it
		NumberOfBytes     int
		EncryptionContext map[string]string
	}{keyID, dataKeyBytes, encryptionContext})
	if err != nil {
		return nil, nil, c.explain(ctx, call, err)
	}
	key, err := renewing(ctx, c, call, func(*ssm.Client) (dataKey, error) { return c.postKMS(ctx, body) })
	return key.Plaintext, key.CiphertextBlob, err
}

// postKMS makes the call, again where the SDK would. To make it twice does no harm.
func (c *Client) postKMS(ctx context.Context, body []byte) (dataKey, error) {
	cur := c.current()
	endpoint, err := kmsEndpoint(ctx, cur)
	if err != nil {
		return dataKey{}, err
	}
	retryer := retry.NewStandard()
	for attempt := 1; ; attempt++ {
		key, err := c.postKMSOnce(ctx, cur, endpoint, body)
		if err == nil || attempt == retryer.MaxAttempts() || !retryer.IsErrorRetryable(err) || ctx.Err() != nil {
			return key, err
		}
		c.logf(2, "get a data key: attempt %d: %v", attempt, err)
		timer := time.NewTimer(rand.N(c.wait << attempt)) // full jitter, as the SDK
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return dataKey{}, context.Cause(ctx)
		}
	}
}

func (c *Client) postKMSOnce(ctx context.Context, cur *loaded, endpoint string, body []byte) (dataKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return dataKey{}, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", kmsTarget)
	creds, err := cur.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return dataKey{}, err
	}
	sum := sha256.Sum256(body)
	now := time.Now().Add(time.Duration(c.skew.Load()))
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(sum[:]), kmsService, cur.cfg.Region, now); err != nil {
		return dataKey{}, err
	}
	answer, err := cur.http.Do(req)
	if err != nil {
		return dataKey{}, &smithyhttp.RequestSendError{Err: err}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, kmsAnswerLimit))
	defer clear(text) // it holds the key
	if err != nil {
		return dataKey{}, &smithyhttp.RequestSendError{Err: err}
	}
	if answer.StatusCode != http.StatusOK {
		return dataKey{}, &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: answer}, Err: parseRefusal(answer.Header, text)}
	}
	return parseDataKey(text)
}

// parseDataKey reads the answer of GenerateDataKey. Its errors hold nothing of it.
func parseDataKey(text []byte) (dataKey, error) {
	var key dataKey
	if err := json.Unmarshal(text, &key); err != nil {
		return dataKey{}, errNoDataKey
	}
	if len(key.Plaintext) != dataKeyBytes || len(key.CiphertextBlob) == 0 || len(key.CiphertextBlob) > maxBlobBytes {
		clear(key.Plaintext)
		return dataKey{}, errNoDataKey
	}
	return key, nil
}

// parseRefusal reads an error of the JSON 1.1 protocol (Smithy, AWS JSON 1.1, "operation error
// serialization"): the code is in a header or in the body, between a namespace and a URL.
func parseRefusal(header http.Header, text []byte) error {
	var body struct {
		Type    string `json:"__type"`
		Code    string `json:"code"`
		Message string `json:"message"` // matches Message as well
	}
	_ = json.Unmarshal(text, &body) // what isn't JSON has no code
	code := cmp.Or(header.Get("X-Amzn-Errortype"), body.Code, body.Type, "UnknownError")
	code, _, _ = strings.Cut(code, ":")
	if _, name, ok := strings.Cut(code, "#"); ok {
		code = name
	}
	return &smithy.GenericAPIError{Code: code, Message: body.Message}
}

// kmsEndpoint returns the URL of KMS: as configured, else the region's.
func kmsEndpoint(ctx context.Context, cur *loaded) (string, error) {
	if configured, err := serviceEndpoint(ctx, cur.cfg, kmsID); configured != "" || err != nil {
		return configured, err
	}
	if cur.cfg.BaseEndpoint != nil {
		return *cur.cfg.BaseEndpoint, nil
	}
	return regionalEndpoint(ctx, cur, kmsService)
}
