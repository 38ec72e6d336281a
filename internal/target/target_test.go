package target

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const long = "0123456789abcdef0"
	tests := []struct {
		name string
		host string
		want Target
		ok   bool
	}{
		{"short instance id", "i-0123abcd", Target{NodeID: "i-0123abcd"}, true},
		{"long instance id", "i-" + long, Target{NodeID: "i-" + long}, true},
		{"managed instance", "mi-" + long, Target{NodeID: "mi-" + long}, true},
		{"with region", "i-" + long + ".eu-west-1", Target{NodeID: "i-" + long, Region: "eu-west-1"}, true},
		{"with region and profile", "mi-" + long + ".us-gov-west-1.prod",
			Target{NodeID: "mi-" + long, Region: "us-gov-west-1", Profile: "prod"}, true},
		{"profile with dots and capitals", "i-0123abcd.eu-west-1.Team.Prod",
			Target{NodeID: "i-0123abcd", Region: "eu-west-1", Profile: "Team.Prod"}, true},
		{"capitals", "I-0123ABCD.EU-West-1", Target{NodeID: "i-0123abcd", Region: "eu-west-1"}, true},
		{"looked-up name", "ssm.web-1", Target{}, true},
		{"looked-up name in capitals", "SSM.Web", Target{}, true},
		{"prefix alone", "ssm.", Target{}, false},
		{"nine digits", "i-0123abcde", Target{}, false},
		{"sixteen digits", "i-0123456789abcdef", Target{}, false},
		{"eighteen digits", "i-" + long + "0", Target{}, false},
		{"managed instance of eight digits", "mi-0123abcd", Target{}, false},
		{"no hexadecimal digit", "i-0123abcg", Target{}, false},
		{"control characters below the digits", "i-\x10\x1123abcd", Target{}, false},
		{"another prefix", "ami-" + long, Target{}, false},
		{"two hyphens", "i--123abcd", Target{}, false},
		{"no id", "i-", Target{}, false},
		{"empty region", "i-0123abcd.", Target{}, false},
		{"empty profile", "i-0123abcd.eu-west-1.", Target{}, false},
		{"DNS domain", "i-0123abcd.example.com", Target{}, false},
		{"region beginning with a hyphen", "i-0123abcd.-west-1", Target{}, false},
		{"region with a slash", "i-0123abcd.eu/west-1", Target{}, false},
		{"DNS name", "web-1.example.com", Target{}, false},
		{"address", "10.0.0.1", Target{}, false},
		{"IPv6 address", "::1", Target{}, false},
		{"empty", "", Target{}, false},
		{"letters that fold to ASCII only in Unicode", "ſsm.web", Target{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.ok {
				tt.want.Name = tt.host
			}
			got, ok := Parse(tt.host)
			if got != tt.want || ok != tt.ok {
				t.Errorf("Parse(%q) = %+v, %v, want %+v, %v", tt.host, got, ok, tt.want, tt.ok)
			}
			if ok && got.String() != tt.host {
				t.Errorf("String() = %q, want %q", got.String(), tt.host)
			}
		})
	}
}

func TestLookup(t *testing.T) {
	tests := []struct{ name, host, want string }{
		{"a name to look up", "ssm.Web.1", "Web.1"},
		{"a node id", "i-0123abcd", ""},
		{"no target", "web", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := Parse(tt.host)
			if got.Lookup() != tt.want {
				t.Errorf("Lookup() = %q, want %q", got.Lookup(), tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"i-0123abcd", "mi-0123456789abcdef0.eu-west-1.p", "ssm.x", "i-0123abcd..", "host"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		got, ok := Parse(host)
		if !ok {
			if got != (Target{}) {
				t.Fatalf("Parse(%q) refused, but returned %+v", host, got)
			}
			return
		}
		if got.Name != host || (got.NodeID == "") == (got.Lookup() == "") {
			t.Fatalf("Parse(%q) = %+v", host, got)
		}
		if got.NodeID == "" {
			return
		}
		parts := []string{got.NodeID}
		for _, part := range []string{got.Region, got.Profile} {
			if part != "" {
				parts = append(parts, part)
			}
		}
		again, ok := Parse(strings.Join(parts, "."))
		if !ok || again.NodeID != got.NodeID || again.Region != got.Region || again.Profile != got.Profile {
			t.Fatalf("%q came back as %+v, %v", strings.Join(parts, "."), again, ok)
		}
	})
}
