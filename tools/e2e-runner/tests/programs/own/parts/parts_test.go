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
	_, err := os.Stat(os.Getenv("MARK"))
	again := err == nil
	os.WriteFile(os.Getenv("MARK"), nil, 0o600)
	switch os.Getenv("PROVOKE") {
	case "fail":
		t.Fatal("told to fail")
	case "leaf":
		t.Run("good", func(t *testing.T) {})
		t.Run("a/b", func(t *testing.T) { t.Fatal("told to fail") })
	case "disk":
		if again {
			// Nothing can be written where its log belongs.
			os.RemoveAll(os.Getenv("LOGS"))
			os.WriteFile(os.Getenv("LOGS"), nil, 0o600)
		}
		t.Fatal("told to fail")
	case "pull":
		t.Log("ErrImagePull")
		if again {
			panic("told to panic the second time")
		}
		t.Fail()
	}
}

func TestLeftOut(t *testing.T) {}
