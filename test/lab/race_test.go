//go:build race

package lab_test

// raceDetector slows everything down, the lab's pace included.
const raceDetector = true
