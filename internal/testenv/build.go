package testenv

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// Build builds the program into a folder, with the race detector where the test has it, and returns
// its path.
func Build(dir string) (string, error) {
	path := filepath.Join(dir, "ssm-ssh")
	args := []string{"build", "-o", path}
	if Race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "ssm-ssh/cmd/ssm-ssh")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return path, nil
}
