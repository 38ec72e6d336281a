package testenv

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// ending records how a test was ended.
type ending struct{ how string }

func (*ending) Helper()                        {}
func (e *ending) Skipf(f string, args ...any)  { e.how = "skip: " + fmt.Sprintf(f, args...) }
func (e *ending) Fatalf(f string, args ...any) { e.how = "fail: " + fmt.Sprintf(f, args...) }

func TestMissingToolSkipsAndFailsInCI(t *testing.T) {
	tests := []struct{ name, ci, tool, path, want string }{
		{"at home", "", "rsync", "", "skip: rsync is missing: apt-get install rsync"},
		{"said to be no CI", "false", "rsync", "", "skip: rsync is missing: apt-get install rsync"},
		{"in CI", "true", "rsync", "", "fail: CI=true and rsync is missing: apt-get install rsync"},
		{"in CI, as a number", "1", "rsync", "", "fail: CI=true and rsync is missing: apt-get install rsync"},
		{"of no known package", "", "frobnicate", "", `fail: testenv knows no program "frobnicate": name its package in the table`},
		{"installed", "true", "rsync", "rsync", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CI", tt.ci)
			dir := t.TempDir()
			t.Setenv("PATH", dir)
			if tt.path != "" {
				if err := os.WriteFile(dir+"/"+tt.path, []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var e ending
			if find(&e, tt.tool); e.how != tt.want {
				t.Errorf("got %q, want %q", e.how, tt.want)
			}
		})
	}
}

func TestFoldersOfAdministratorsCount(t *testing.T) {
	path, err := Find("sshd")
	if err != nil {
		Missing(t, err.Error())
	}
	t.Setenv("PATH", t.TempDir())
	again, err := Find("sshd")
	if err != nil || !strings.HasSuffix(again, "/sshd") {
		t.Errorf("with PATH %s, without %q, %v", path, again, err)
	}
}

func TestDescriptors(t *testing.T) {
	before := Descriptors(t)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if got := Descriptors(t); got != before+1 {
		t.Errorf("%d, want %d", got, before+1)
	}
	f.Close()
	if got := Descriptors(t); got != before {
		t.Errorf("%d, want %d", got, before)
	}
	if got := DescriptorsOf(t, os.Getpid()); got < before {
		t.Errorf("seen from outside: %d, want at least %d", got, before)
	}
}
