package main

import (
	"os"
	"slices"
	"testing"
)

func TestEnvironmentOfTheNewestClient(t *testing.T) {
	t.Setenv("AWS_SESSION_TOKEN", "old")
	t.Setenv("AWS_ACCESS_KEY_ID", "old")
	t.Setenv("SSM_SSH_OTHER", "stays")
	handed := awsEnvironment([]string{"AWS_ACCESS_KEY_ID=new", "AWS_EMPTY=", "SECRET=no", "AWSOME=no"})
	if want := []string{"AWS_ACCESS_KEY_ID=new", "AWS_EMPTY="}; !slices.Equal(handed, want) {
		t.Errorf("handed over %q, want %q", handed, want)
	}
	t.Setenv("AWS_EMPTY", "") // restored after the test
	new(adopter).adopt(append(handed, "PATH=/nowhere"))
	for name, want := range map[string]string{"AWS_ACCESS_KEY_ID": "new", "AWS_SESSION_TOKEN": "", "SSM_SSH_OTHER": "stays", "PATH": os.Getenv("PATH")} {
		if got := os.Getenv(name); got != want || name == "PATH" && got == "/nowhere" {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
}
