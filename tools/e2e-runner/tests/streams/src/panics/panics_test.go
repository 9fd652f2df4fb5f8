// Package panics ends by a panic in a test.
package panics

import "testing"

func TestBefore(t *testing.T) {}

func TestPanics(t *testing.T) {
	var none map[string]int
	t.Log("about to")
	none["x"] = 1
}

func TestAfter(t *testing.T) {}
