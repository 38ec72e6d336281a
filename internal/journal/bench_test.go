package journal

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkNewConnection is what a new connection does in the journal besides its own record, beside others
// whose owners live: it looks for the dead.
func BenchmarkNewConnection(b *testing.B) {
	for _, living := range []int{0, 200, 1000} {
		b.Run(fmt.Sprint(living), func(b *testing.B) {
			j := At(filepath.Join(b.TempDir(), "sessions"))
			if err := j.makeDir(); err != nil {
				b.Fatal(err)
			}
			for range living { // of one process: a lock is the open file's, not the process's
				r := full()
				r.Tag = NewTag()
				e, err := j.Begin(r)
				if err != nil {
					b.Fatal(err)
				}
				defer e.Release()
			}
			for b.Loop() {
				if j.Empty() {
					continue
				}
				if items, err := j.Stale(time.Now()); err != nil || len(items) > 0 {
					b.Fatal(items, err)
				}
			}
		})
	}
}
