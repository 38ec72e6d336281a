//go:build !linux

package selfexec

import "os"

// descriptorFolder shows the open descriptors (fd(4)).
const descriptorFolder = "/dev/fd"

// executable returns the path of this program.
func executable() (string, error) { return os.Executable() }

func nameProcess() {}
