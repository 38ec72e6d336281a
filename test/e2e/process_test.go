package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// masterBelow returns the process of a background master whose control path lies below dir, or
// otherwise when there is none.
func masterBelow(dir string, otherwise int) int {
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range found {
		line, err := os.ReadFile(name)
		if err != nil || !bytes.Contains(line, []byte("internal-master\x00"+dir)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			return pid
		}
	}
	return otherwise
}
