// Package plain passes, fails nothing and skips one.
package plain

import "testing"

func TestGood(t *testing.T)    { t.Log("all is well") }
func TestSkipped(t *testing.T) { t.Skip("not on this machine") }
func TestSilent(*testing.T)    {}

func Example() {
	greet()
	// Output: hello
}
