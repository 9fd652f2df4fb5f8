// Package bench has benchmarks.
package bench

import "testing"

func TestFine(t *testing.T) {}
func BenchmarkAdd(b *testing.B) {
	n := 0
	for b.Loop() {
		n++
	}
	b.Log("counted")
}
func BenchmarkSub(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
		}
	})
	b.Run("fails", func(b *testing.B) { b.Error("no") })
}
