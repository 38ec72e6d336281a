package awsapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/smithy-go"

	"ssm-ssh/internal/report"
)

// Every error of the SDK becomes the user's one line here, and only here. The line holds AWS's own
// sentence where there is one; the whole chain, request id included, goes to the log at level 1.

// errIncompleteAnswer is an answer without id, URL or token: hardly AWS's.
var errIncompleteAnswer = errors.New("the answer holds no session")

// call is what was being done when an error came.
type call struct {
	op        string // in our words
	target    string
	service   string // as IAM names it; empty is ssm
	operation string // of its API; IAM's action has the same name
	document  string
	uncertain bool // a session may have been started
}

// cause is an error under a text fit for the user's line.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

// explain makes the line for a call that has failed.
func (c *Client) explain(ctx context.Context, call call, err error) error {
	c.logf(1, "%s: %v", call.op, err)
	line := &report.Error{Op: call.op, Target: call.target, Err: err}
	if c.opts.Target != "" {
		line.Target = c.opts.Target
	}
	var api smithy.APIError
	switch {
	case ctx.Err() != nil:
		// The end of the context has a cause that callers ask for with errors.As.
		line.Err = context.Cause(ctx)
	case errors.Is(err, ErrSessionGone):
	case errors.Is(err, errIncompleteAnswer), errors.Is(err, errNoDataKey):
		line.Hint = "is the endpoint AWS's?"
	case errors.As(err, &api) && httpStatus(err) != 0:
		line.Hint, line.Err = c.refusal(call, api, err)
	default:
		line.Hint, line.Err = network(err)
	}
	if call.uncertain {
		line.Err = &cause{line.Err.Error(), errors.Join(ErrMayHaveStarted, line.Err)}
		if line.Hint == "" {
			line.Hint = ErrMayHaveStarted.Error() + "; it ends at its idle time-out"
		}
	}
	return line
}

// refusal returns what helps against an answer that is an error, and its cause.
func (c *Client) refusal(call call, api smithy.APIError, err error) (string, error) {
	cause := &cause{text: apiText(api), err: err}
	cfg := c.current().cfg
	code := api.ErrorCode()
	switch {
	case isThrottled(err):
		cause.err = errors.Join(ErrThrottled, err)
		return "the account's rate for this call in " + cfg.Region + " is used up; try again in a minute", cause
	case code == "AccessDeniedException" || code == "AccessDenied" || code == "UnauthorizedOperation":
		return "the caller needs " + call.permission(cfg.Region), cause
	case expired(err):
		return renewHint(cfg), cause
	case code == "UnrecognizedClientException" || code == "InvalidClientTokenId" || code == "InvalidAccessKeyId":
		return "AWS doesn't know this access key in " + cfg.Region + "; check AWS_PROFILE and AWS_ACCESS_KEY_ID", cause
	case slices.Contains(clockCodes, code):
		return clockHint(api), cause
	case code == "TargetNotConnected":
		cause.err = errors.Join(ErrNotConnected, err)
		return "is the node's SSM agent running and online in " + cfg.Region + "?", cause
	case code == "InvalidDocument":
		return "is there a document " + call.document + " in " + cfg.Region + "? SSMDocument names another", cause
	case code == "InvalidParameters":
		return "does the document " + call.document + " take a portNumber?", cause
	case call.service == kmsService && slices.Contains(keyCodes, code):
		return "does the key of the session preferences exist in " + cfg.Region + ", and is it enabled?", cause
	case httpStatus(err) >= http.StatusInternalServerError:
		cause.err = errors.Join(ErrUnavailable, err)
		return "", cause
	case code == "DoesNotExistException":
		return "", fmt.Errorf("%w: %w", ErrSessionGone, cause)
	}
	return "", cause
}

// permission names the right that the call needs: the IAM action, and for StartSession both of the
// resources that a policy has to grant.
func (c call) permission(region string) string {
	if c.service == kmsService {
		return "kms:" + c.operation + " on the key of the session preferences"
	}
	if c.service != "" {
		return c.service + ":" + c.operation
	}
	action := "ssm:" + c.operation
	if c.operation != "StartSession" {
		return action
	}
	return fmt.Sprintf("%s on the node and on %s", action, documentARN(region, c.document))
}

// documentARN is the resource that IAM checks for a document. Those of AWS have no account in it.
func documentARN(region, document string) string {
	if strings.HasPrefix(document, "arn:") {
		return document
	}
	partition, account := "aws", ""
	switch {
	case strings.HasPrefix(region, "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		partition = "aws-us-gov"
	}
	if !strings.HasPrefix(document, "AWS-") {
		account = "ACCOUNT"
	}
	return fmt.Sprintf("arn:%s:ssm:%s:%s:document/%s", partition, region, account, document)
}

var (
	expiredCodes = []string{"ExpiredTokenException", "ExpiredToken", "RequestExpired", "TokenRefreshRequired"}
	keyCodes     = []string{"NotFoundException", "DisabledException", "KMSInvalidStateException", "KeyUnavailableException", "InvalidKeyUsageException"}
	clockCodes   = []string{"InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed"}
)

// expired says whether credentials were refused for their age.
func expired(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && slices.Contains(expiredCodes, api.ErrorCode())
}

// clockHint tells a wrong clock from a wrong secret. AWS has one code for both; the sentence about
// the date says "Signature expired" or "Signature not yet current" (IAM user guide, troubleshooting
// Signature Version 4).
func clockHint(api smithy.APIError) string {
	text := api.ErrorMessage()
	if strings.HasPrefix(text, "Signature expired") || strings.HasPrefix(text, "Signature not yet current") ||
		api.ErrorCode() == "RequestTimeTooSkewed" {
		return "is this machine's clock right?"
	}
	return "does the secret access key belong to the access key?"
}

// apiText is AWS's own sentence behind its code.
func apiText(api smithy.APIError) string {
	message := strings.TrimRight(api.ErrorMessage(), ". \n")
	if message == "" || message == "UnknownError" { // the SDK's word for none
		return api.ErrorCode()
	}
	return api.ErrorCode() + ": " + message
}

// renewHint says how the credentials in use are renewed: which command signs in to the profile.
func renewHint(cfg aws.Config) string {
	if command := loginCommand(sharedConfig(cfg)); command != "" {
		return "sign in again: " + command
	}
	return "get new credentials"
}

// loginCommand returns the AWS CLI's command that signs in to a profile, or to the one that it takes
// its role from; empty when the profile's credentials don't come from a sign-in.
func loginCommand(shared config.SharedConfig) string {
	for profile := &shared; profile != nil; profile = profile.Source {
		verb := ""
		switch {
		case profile.SSOSession != nil, profile.SSOStartURL != "":
			verb = "aws sso login"
		case profile.LoginSession != "":
			verb = "aws login"
		default:
			continue
		}
		if profile.Profile == "" || profile.Profile == config.DefaultSharedConfigProfile {
			return verb
		}
		return verb + " --profile " + profile.Profile
	}
	return ""
}

// explainLoad makes the line for a configuration that can't be loaded.
func (c *Client) explainLoad(ctx context.Context, err error) error {
	c.logf(1, "load AWS configuration: %v", err)
	line := &report.Error{Op: "load AWS configuration", Target: c.opts.Target, Err: err}
	var noProfile config.SharedConfigProfileNotExistError
	var noMFA config.AssumeRoleTokenProviderNotSetError
	switch {
	case ctx.Err() != nil:
		line.Err = context.Cause(ctx)
	case errors.As(err, &noProfile):
		line.Err = &cause{fmt.Sprintf("there is no profile %q", noProfile.Profile), err}
		line.Hint = "aws configure list-profiles shows those that there are"
	case errors.As(err, &noMFA):
		line.Err = &cause{"the profile asks for an MFA code", err}
		line.Hint = "get session credentials first and put them into the environment"
	case os.Getenv("AWS_CA_BUNDLE") != "" && strings.Contains(err.Error(), "CA bundle"), unreadable(err, os.Getenv("AWS_CA_BUNDLE")):
		line.Hint = "AWS_CA_BUNDLE must name a file of certificates in PEM form"
	}
	return line
}

// unreadable says whether err is about opening that file.
func unreadable(err error, path string) bool {
	var file *os.PathError
	return path != "" && errors.As(err, &file) && file.Path == path
}

// explainCredentials makes the line for credentials that can't be had.
func (c *Client) explainCredentials(ctx context.Context, cfg aws.Config, err error) error {
	c.logf(1, "get AWS credentials: %v", err)
	line := &report.Error{Op: "get AWS credentials", Target: c.opts.Target}
	shared := sharedConfig(cfg)
	login := loginCommand(shared)
	var api smithy.APIError
	var process *processcreds.ProviderError
	switch {
	case ctx.Err() != nil:
		line.Err = context.Cause(ctx)
	case fromMetadata(cfg) && shared.CredentialSource == "":
		line.Err = &cause{"there are none in the environment, in the profile or from instance metadata", err}
		line.Hint = "set AWS_PROFILE, or sign in with the AWS CLI"
	case login != "" && !isNetwork(err):
		line.Err, line.Hint = &cause{"the sign-in has expired or was never made", err}, "sign in: "+login
	case errors.As(err, &api):
		line.Err = &cause{apiText(api), err}
		line.Hint = "may the caller assume the role " + shared.RoleARN + "?"
		if shared.RoleARN == "" {
			line.Hint = "check the profile's credentials"
		}
	case errors.As(err, &process):
		line.Err, line.Hint = process.Err, "does the profile's credential_process work by itself?"
	default:
		line.Hint, line.Err = network(err)
	}
	return line
}

// isNetwork says whether an error came before any answer.
func isNetwork(err error) bool {
	var request *url.Error
	return errors.As(err, &request)
}

// network returns what helps against a call that got no answer, and its cause without the URL.
func network(err error) (string, error) {
	var request *url.Error
	switch {
	case errors.As(err, &request):
	case errors.Is(err, context.DeadlineExceeded): // of the call itself, in the SDK's many words
		return "is the way to AWS open? HTTPS_PROXY names a proxy", &cause{text: "no answer in time", err: err}
	default:
		return "", err
	}
	cause := &cause{text: request.Err.Error(), err: err}
	var dns *net.DNSError
	var op *net.OpError
	var proxy *proxyError
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &proxy):
		return "check HTTPS_PROXY and what the proxy lets through", cause
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "check HTTPS_PROXY, or name the host in NO_PROXY", cause
	case errors.As(err, &authority):
		return "if a proxy or an endpoint of your own signs here, name its authority in AWS_CA_BUNDLE", cause
	case errors.As(err, &certificate):
		return "is the endpoint the right one, and this machine's clock right?", cause
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the endpoint doesn't speak TLS; check AWS_ENDPOINT_URL", cause
	case errors.As(err, &dns):
		return "check the region and the name service", cause
	case request.Timeout():
		return "is the way to AWS open? HTTPS_PROXY names a proxy", cause
	case op != nil:
		return "check AWS_ENDPOINT_URL, HTTPS_PROXY and the network", cause
	}
	return "", cause
}
