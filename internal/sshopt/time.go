package sshopt

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// parseTime reads OpenSSH's time format (convtime, misc.c): a sum of numbers, each with a unit
// of s, m, h, d, w, or none for seconds; fractions of seconds as in 10.x, with a unit of s or none.
func parseTime(s string) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	var total time.Duration
	for s != "" {
		digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
		n, err := strconv.ParseInt(s[:digits], 10, 32)
		if err != nil {
			return 0, false
		}
		s = s[digits:]
		part := time.Duration(n)
		if strings.HasPrefix(s, ".") {
			var ok bool
			if part, s, ok = parseFraction(part, s[1:]); !ok {
				return 0, false
			}
			total += part
			continue
		}
		unit := time.Second
		if s != "" {
			if unit = timeUnit(s[0]); unit == 0 {
				return 0, false
			}
			s = s[1:]
		}
		if total += part * unit; part > math.MaxInt32*time.Second/unit || total > math.MaxInt32*time.Second {
			return 0, false
		}
	}
	return total, true
}

// parseFraction reads the digits after a point and the unit behind them.
func parseFraction(seconds time.Duration, s string) (total time.Duration, rest string, ok bool) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	if digits == 0 || digits > 9 {
		return 0, "", false
	}
	n, err := strconv.ParseInt(s[:digits]+"000000000"[digits:], 10, 64)
	if err != nil {
		return 0, "", false
	}
	rest = s[digits:]
	if rest != "" && (rest[0] == 's' || rest[0] == 'S') {
		rest = rest[1:]
	} else if rest != "" {
		return 0, "", false
	}
	return seconds*time.Second + time.Duration(n), rest, true
}

func timeUnit(c byte) time.Duration {
	switch c {
	case 's', 'S':
		return time.Second
	case 'm', 'M':
		return time.Minute
	case 'h', 'H':
		return time.Hour
	case 'd', 'D':
		return 24 * time.Hour
	case 'w', 'W':
		return 7 * 24 * time.Hour
	}
	return 0
}

// parseScaled reads a number of bytes with a suffix of K, M, G, T, P or E (scan_scaled(3), which
// OpenSSH calls for RekeyLimit). On failure it returns what strerror(3) says there.
func parseScaled(s string) (n int64, failure string) {
	const invalid, tooLarge = "Invalid argument", "Numerical result out of range"
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	if digits == 0 {
		return 0, invalid
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	if err != nil {
		return 0, tooLarge
	}
	suffix := s[digits:]
	var fraction float64
	if strings.HasPrefix(suffix, ".") {
		end := len(suffix) - len(strings.TrimLeft(suffix[1:], "0123456789"))
		fraction, _ = strconv.ParseFloat("0"+suffix[:end], 64) // "0." at least: never fails
		suffix = suffix[end:]
	}
	if suffix == "" || strings.EqualFold(suffix, "b") {
		return n, ""
	}
	power := strings.IndexByte("kmgtpe", suffix[0]|0x20)
	if power < 0 || len(suffix) > 1 {
		return 0, invalid
	}
	unit := int64(1) << (10 * (power + 1))
	if n >= math.MaxInt64/unit {
		return 0, tooLarge
	}
	return n*unit + int64(fraction*float64(unit)), ""
}
