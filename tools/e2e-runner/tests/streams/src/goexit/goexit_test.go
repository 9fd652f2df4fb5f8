// Package goexit ends by a panic in a goroutine of nobody's, with two tests running.
package goexit

import (
	"testing"
	"time"
)

func TestOne(t *testing.T) { t.Parallel(); time.Sleep(5 * time.Second) }

func TestTwo(t *testing.T) {
	t.Parallel()
	go func() { panic("in the background") }()
	time.Sleep(5 * time.Second)
}
