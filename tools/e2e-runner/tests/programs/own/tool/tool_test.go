//go:build calls

// Package tool calls a program of its module that is built for its tests.
package tool

import (
	"flag"
	"os"
	"os/exec"
	"runtime"
	"testing"
)

var (
	tool = flag.String("tool", "", "the program")
	_    = flag.String("kubeconfig", "", "of the cluster")
)

func TestCalls(t *testing.T) {
	said, err := exec.Command(*tool).CombinedOutput()
	if err != nil || string(said) != "tool devel\n" {
		t.Fatalf("%s: %q, %v", *tool, said, err)
	}
	if os.Getenv("PROVOKE") == "fail" {
		t.Error("provoked")
	}
}

// TestFinds finds a file beside its source.
func TestFinds(t *testing.T) {
	_, file, _, _ := runtime.Caller(0)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}
