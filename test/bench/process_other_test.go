//go:build !linux

package bench

import (
	"testing"
	"time"
)

const noCounts = "only Linux tells this of another process"

func processorTime(t testing.TB, _ int) time.Duration { t.Skip(noCounts); return 0 }
func switches(t testing.TB, _ int) int                { t.Skip(noCounts); return 0 }
func childOf(t testing.TB, _ int) int                 { t.Skip(noCounts); return 0 }
