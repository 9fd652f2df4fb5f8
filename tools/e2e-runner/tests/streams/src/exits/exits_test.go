// Package exits leaves the process in the middle of a test.
package exits

import (
	"os"
	"testing"
)

func TestBefore(t *testing.T) {}
func TestExits(t *testing.T)  { t.Log("leaving"); os.Exit(3) }
func TestAfter(t *testing.T)  {}
