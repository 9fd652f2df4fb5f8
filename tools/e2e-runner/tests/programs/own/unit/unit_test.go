// Package unit holds unit tests that look where they run.
package unit

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

func TestPlace(t *testing.T) {
	_, file, _, _ := runtime.Caller(0)
	for _, name := range []string{"testdata/x.txt", "unit_test.go", file} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("not there: %v", err)
		}
	}
	if want := "for " + runtime.GOARCH; os.Getenv("OWN") != want {
		t.Errorf("OWN=%q, want %q", os.Getenv("OWN"), want)
	}
	if err := os.WriteFile(t.TempDir()+"/x", nil, 0o600); err != nil {
		t.Error(err)
	}
	// Beside the sources, as where it was compiled.
	if err := os.Mkdir("written", 0o700); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll("written"); err != nil {
		t.Error(err)
	}
	if os.Getuid() == 0 {
		t.Error("it runs as root")
	}
}

func TestProvoked(t *testing.T) {
	switch os.Getenv("PROVOKE") {
	case "fail":
		t.Fatal("told to fail")
	case "panic":
		panic("told to panic")
	}
}

// TestBothOutputs prints to one and the other.
func TestBothOutputs(t *testing.T) {
	for i := range 200 {
		fmt.Fprintln([]*os.File{os.Stdout, os.Stderr}[i%2], "both", i)
	}
}

// TestTicks prints for so long that a connection can break meanwhile.
func TestTicks(t *testing.T) {
	for i := range 80 {
		fmt.Println("tick", i)
		time.Sleep(100 * time.Millisecond)
	}
}
