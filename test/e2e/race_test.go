//go:build race

package e2e

// raceBuild makes the program under test be built as the test is.
const raceBuild = true
