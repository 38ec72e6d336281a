package awsapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// diary is a Pacer that writes down what it is told, and lets nobody wait.
type diary struct {
	told     []string
	patience int // refusals until there is no time left
}

func (d *diary) Turn(ctx context.Context, _ func(time.Duration)) error {
	d.told = append(d.told, "turn")
	return context.Cause(ctx)
}

func (d *diary) Granted() { d.told = append(d.told, "granted") }

func (d *diary) Refused(context.Context, func(time.Duration)) error {
	d.told = append(d.told, "refused")
	if d.patience--; d.patience < 0 {
		return errors.New("no time left")
	}
	return nil
}

func TestPace(t *testing.T) {
	throttled, done := refusal(400, "ThrottlingException", "Rate exceeded"), answer{status: 200, body: map[string]string{}}
	for _, tt := range []struct {
		name    string
		answers []answer
		want    []string
		err     error
	}{
		{"served", []answer{done}, []string{"turn", "granted"}, nil},
		{"refused twice", []answer{throttled, throttled, done}, []string{"turn", "refused", "refused", "granted"}, nil},
		{"refused for ever", []answer{throttled}, []string{"turn", "refused", "refused", "refused"}, ErrThrottled},
		{"failed once", []answer{{do: drop}, done}, []string{"turn", "granted"}, nil},
		{"not allowed", []answer{refusal(400, "AccessDeniedException", "no")}, []string{"turn", "granted"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			newFakeAPI(t, tt.answers...)
			d := &diary{patience: 2}
			asked := ""
			c := newClient(t, Options{Pace: func(who Identity, operation string) Pacer {
				asked = fmt.Sprint(who.Region, " ", operation)
				return d
			}})
			err := c.TerminateSession(t.Context(), "me-0123")
			if !slices.Equal(d.told, tt.want) || asked != "eu-central-1 TerminateSession" {
				t.Errorf("%s was told %q, want %q", asked, d.told, tt.want)
			}
			if tt.err != nil && !errors.Is(err, tt.err) || tt.err == nil && (err != nil) != (tt.name == "not allowed") {
				t.Errorf("error %v", err)
			}
		})
	}
}
