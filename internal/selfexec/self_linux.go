package selfexec

import "os"

// descriptorFolder shows the open descriptors (proc(5)).
const descriptorFolder = "/proc/self/fd"

// executable returns the path of this very program. /proc/self/exe stays right when the file was
// replaced by a newer version, whose options may be others.
func executable() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// nameProcess gives the process the name that ps and pgrep show; exec took it from the path, and
// that said "exe".
func nameProcess() {
	os.WriteFile("/proc/self/comm", []byte(programName), 0) //nolint:errcheck // a name is all that is lost
}
