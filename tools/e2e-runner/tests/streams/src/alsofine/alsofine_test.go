// Package alsofine runs beside the others.
package alsofine

import (
	"testing"
	"time"
)

func TestSlow(t *testing.T) {
	for range 5 {
		t.Log("still there")
		time.Sleep(10 * time.Millisecond)
	}
}
