//go:build race

package testenv

// Race says whether this is built with the race detector, which slows everything down.
const Race = true
