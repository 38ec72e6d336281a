package main

import (
	"bytes"
	"testing"
	"time"

	"ssm-ssh/internal/awsapi"
)

func TestSessionsTable(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	idle, total := 61.5, uint64(48211)
	var out bytes.Buffer
	err := writeTable(&out, []listed{
		{Session: "me-0123", Target: "mi-1", Owner: "me", State: "live", Started: now.Add(-12*time.Minute - 4*time.Second), Idle: &idle, Bytes: &total},
		{Target: "i-2", State: "stale", Started: now.Add(-50 * time.Hour)},
	}, now)
	want := "SESSION  TARGET  OWNER  AGE    IDLE  BYTES  STATE\n" +
		"me-0123  mi-1    me     12m4s  1m1s  48211  live\n" +
		"-        i-2     -      2d2h   -     -      stale\n"
	if err != nil || out.String() != want {
		t.Errorf("got\n%swant\n%s%v", out.String(), want, err)
	}
}

func TestAgeText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59*time.Second + 999*time.Millisecond: "59s", time.Minute: "1m0s",
		time.Hour + 30*time.Minute: "1h30m", 49 * time.Hour: "2d1h",
	} {
		if got := ageText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// What others have written into the account's list must not reach the terminal as it is.
func TestSessionsOfOthersAreSafeToPrint(t *testing.T) {
	v := new(sessionsVerb)
	var out bytes.Buffer
	if err := writeTable(&out, v.listActive(t.Context(), []awsapi.SessionInfo{{ID: "x-1", Owner: "a\x1b[2Jb", Status: "Connected"}}, nil), time.Now()); err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsRune(out.Bytes(), 0x1b) || !bytes.Contains(out.Bytes(), []byte("a?[2Jb")) || !bytes.Contains(out.Bytes(), []byte("connected")) {
		t.Errorf("%q", out.String())
	}
}
