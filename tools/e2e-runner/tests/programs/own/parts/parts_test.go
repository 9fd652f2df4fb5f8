// Package parts holds tests that need nothing, some of which take a while.
package parts

import (
	"flag"
	"os"
	"testing"
	"time"
)

var _ = flag.String("kubeconfig", "", "of the cluster")

func TestQuick(t *testing.T) {}

func TestSlow(t *testing.T) { time.Sleep(300 * time.Millisecond) }

func TestSlower(t *testing.T) { time.Sleep(500 * time.Millisecond) }

func TestInner(t *testing.T) {
	t.Run("one", func(t *testing.T) {})
	t.Run("two", func(t *testing.T) { t.Skip("not here") })
}

func TestProvoked(t *testing.T) {
	if os.Getenv("PROVOKE") == "fail" {
		t.Fatal("told to fail")
	}
}

func TestLeftOut(t *testing.T) {}
