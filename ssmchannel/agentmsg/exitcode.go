package agentmsg

import (
	"bytes"
	"fmt"
	"strconv"
)

// exitCodePrefix begins the payload of type ExitCode (protocol of
// NonInteractiveCommands sessions with separate output streams).
const exitCodePrefix = "EXIT_CODE: "

// AppendExitCode appends the payload of type ExitCode to dst.
func AppendExitCode(dst []byte, code int) []byte {
	return strconv.AppendInt(append(dst, exitCodePrefix...), int64(code), 10)
}

// ParseExitCode reads the payload of type ExitCode: "EXIT_CODE: <n>".
func ParseExitCode(payload []byte) (int, error) {
	digits, ok := bytes.CutPrefix(bytes.TrimSpace(payload), []byte(exitCodePrefix))
	if !ok {
		return 0, fmt.Errorf("agentmsg: exit code: %w", ErrFormat)
	}
	code, err := strconv.ParseInt(string(digits), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("agentmsg: exit code: %w", ErrFormat)
	}
	return int(code), nil
}
