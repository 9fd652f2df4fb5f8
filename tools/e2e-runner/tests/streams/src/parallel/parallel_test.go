// Package parallel interleaves the output of its tests.
package parallel

import (
	"fmt"
	"testing"
	"time"
)

func work(t *testing.T, fail bool) {
	t.Parallel()
	for i := range 3 {
		t.Logf("%s step %d", t.Name(), i)
		time.Sleep(10 * time.Millisecond)
	}
	if fail {
		t.Errorf("%s is not good", t.Name())
	}
}

func TestA(t *testing.T) { work(t, false) }
func TestB(t *testing.T) { work(t, true) }
func TestC(t *testing.T) {
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) { work(t, i == 1) })
	}
}
