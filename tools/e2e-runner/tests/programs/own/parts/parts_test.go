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
	switch os.Getenv("PROVOKE") {
	case "fail":
		t.Fatal("told to fail")
	case "disk":
		// The second time, nothing can be written where its log belongs.
		if _, err := os.Stat(os.Getenv("MARK")); err == nil {
			os.RemoveAll(os.Getenv("LOGS"))
			os.WriteFile(os.Getenv("LOGS"), nil, 0o600)
		}
		os.WriteFile(os.Getenv("MARK"), nil, 0o600)
		t.Fatal("told to fail")
	}
}

func TestLeftOut(t *testing.T) {}
