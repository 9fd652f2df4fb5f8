// Package fuzz has a fuzz test that finds something in its seeds.
package fuzz

import "testing"

func FuzzSeeds(f *testing.F) {
	f.Add("good")
	f.Add("bad")
	f.Fuzz(func(t *testing.T, s string) {
		if s == "bad" {
			t.Errorf("found %q", s)
		}
	})
}
