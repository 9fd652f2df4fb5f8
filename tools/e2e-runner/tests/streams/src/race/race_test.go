// Package race has a data race.
package race

import "testing"

func TestRaces(t *testing.T) {
	n, done := 0, make(chan bool)
	go func() { n++; done <- true }()
	n++
	<-done
	t.Log(n)
}
