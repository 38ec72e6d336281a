package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
)

// here returns this process's place. A machine id may be shared by copies of one image, and the name
// by strangers: together they tell hosts apart. The id is confidential (machine-id(5)), so their hash
// stands for them.
func here() Place {
	name, _ := os.Hostname() //nolint:errcheck // without one the machine id must do
	id := firstLine("/etc/machine-id", "/var/lib/dbus/machine-id")
	sum := sha256.Sum256([]byte("ssm-ssh journal\n" + id + "\n" + name))
	namespace, _ := os.Readlink("/proc/self/ns/pid") //nolint:errcheck // without /proc there is none
	return Place{Host: hex.EncodeToString(sum[:8]), Namespace: namespace, Boot: firstLine("/proc/sys/kernel/random/boot_id")}
}

// firstLine returns the first line of the first file that has one.
func firstLine(paths ...string) string {
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			first, _, _ := strings.Cut(string(text), "\n")
			return strings.TrimSpace(first)
		}
	}
	return ""
}
