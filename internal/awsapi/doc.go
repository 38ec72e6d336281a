// Package awsapi makes the few calls to AWS that the program needs, and holds everything that comes
// from the user's AWS set-up: credentials, region, endpoints, roots, proxies.
//
//	api, err := awsapi.New(ctx, awsapi.Options{})
//	session, err := api.StartSession(ctx, awsapi.StartInput{Target: "mi-…", Document: "AWS-StartSSHSession"})
//	defer api.TerminateSession(ctx, session.ID)
//
// It is the only package that imports the SDK. It doesn't know what a session is for: the websocket
// is ssmchannel's, which is handed SignStream, ResumeSession and HTTPClient from here.
//
//	client.go   configuration and credentials, loaded once and again when they have expired
//	session.go  the calls that begin and end a session
//	sessions.go the calls that look for sessions, and say who we are
//	retry.go    when StartSession, which isn't idempotent, may be sent again
//	pace.go     turns for the others, which the caller gives
//	stream.go   roots, proxies and signature of the websocket
//	gateway.go  its TLS connection, made while StartSession runs
//	kms.go      the call for a data key, made by hand
//	endpoint.go where other services than SSM are
//	errors.go   SDK error → one line with a hint
//
// Goroutines: one that connects ahead, for which the release of ConnectAhead waits. Those of net/http's
// idle connections end with Close.
//
// Sources: the SSM API reference, by operation; Signature Version 4 in the IAM user guide; the
// variables of the environment in the AWS SDKs and Tools Reference Guide.
package awsapi
