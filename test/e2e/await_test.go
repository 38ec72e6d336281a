package e2e

import (
	"os"
	"time"
)

// awaitLimit is how long something that another process brings about may take.
const awaitLimit = 20 * time.Second

// await polls a condition.
func (r *rig) await(what string, holds func() bool) {
	r.Helper()
	r.awaitWithin(awaitLimit, what, holds)
}

func (r *rig) awaitWithin(limit time.Duration, what string, holds func() bool) {
	r.Helper()
	for deadline := time.Now().Add(limit); !holds(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("waited in vain for %s", what)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
