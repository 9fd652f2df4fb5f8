// Package brokentest has a test that does not compile.
package brokentest

import "testing"

func TestTwo(t *testing.T) { undefined() }
