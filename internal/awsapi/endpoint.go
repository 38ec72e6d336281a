package awsapi

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// endpointSource is a part of the configuration that may name a service's endpoint: environment or
// profile (the SDK's internal/configsources asks them in the same way).
type endpointSource interface {
	GetServiceBaseEndpoint(ctx context.Context, sdkID string) (string, bool, error)
}

type endpointIgnorer interface {
	GetIgnoreConfiguredEndpoints(ctx context.Context) (bool, bool, error)
}

// serviceEndpoint returns the URL that the user has set for a service, "" without one.
func serviceEndpoint(ctx context.Context, cfg aws.Config, sdkID string) (string, error) {
	for _, source := range cfg.ConfigSources {
		if s, ok := source.(endpointIgnorer); ok {
			if ignore, found, err := s.GetIgnoreConfiguredEndpoints(ctx); err != nil || found && ignore {
				return "", err
			}
		}
	}
	for _, source := range cfg.ConfigSources {
		if s, ok := source.(endpointSource); ok {
			if endpoint, found, err := s.GetServiceBaseEndpoint(ctx, sdkID); err != nil || found {
				return endpoint, err
			}
		}
	}
	return "", nil
}

// regionalEndpoint returns the URL of a service's own endpoint. Its host is named as SSM's of the same
// region, partition and kind.
func regionalEndpoint(ctx context.Context, cur *loaded, service string) (string, error) {
	options := cur.api.Options().EndpointOptions
	fips := options.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled
	resolved, err := ssm.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, ssm.EndpointParameters{
		Region: aws.String(cur.cfg.Region), UseFIPS: aws.Bool(fips),
		UseDualStack: aws.Bool(options.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
	})
	if err != nil {
		return "", err
	}
	_, domain, ok := strings.Cut(resolved.URI.Host, ".")
	if !ok {
		return "", fmt.Errorf("no endpoint of %s is known in %s", strings.ToUpper(service), cur.cfg.Region)
	}
	if fips {
		service += "-fips"
	}
	return (&url.URL{Scheme: "https", Host: service + "." + domain, Path: "/"}).String(), nil
}
