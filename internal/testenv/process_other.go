//go:build !linux

package testenv

import (
	"testing"
	"time"
)

const noCounts = "only Linux tells this of another process"

func ProcessorTime(t testing.TB, _ int) time.Duration    { t.Skip(noCounts); return 0 }
func Switches(t testing.TB, _ int) int                   { t.Skip(noCounts); return 0 }
func Memory(t testing.TB, _ int) (resident, share int64) { t.Skip(noCounts); return 0, 0 }
