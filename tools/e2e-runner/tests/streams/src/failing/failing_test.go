// Package failing fails in the ways that assertions do.
package failing

import (
	"fmt"
	"testing"
)

func TestFirst(t *testing.T) {
	t.Log("looking")
	t.Errorf("wanted 2 greetings, got %d", 1)
	t.Errorf("and a second complaint\nof two lines")
}

func TestFatal(t *testing.T) {
	fmt.Println("printed by the program")
	t.Fatal("cannot go on")
}

func TestFailNow(t *testing.T) { t.FailNow() }

func TestGood(t *testing.T) { t.Log("fine") }

func Example() {
	fmt.Println("one")
	// Output: two
}
