package main

import (
	"os"
	"path/filepath"
	"testing"
)

// In a pod the device tree lies elsewhere, and is told under its own name.
func TestTheDeviceTreeIsReadWhereItIsMounted(t *testing.T) {
	mounted = t.TempDir()
	tree := filepath.Join(mounted, "devicetree/base")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "model"), []byte("IBM pSeries (emulated by qemu)\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	if model := files()["/sys/firmware/devicetree/base/model"]; model != "IBM pSeries (emulated by qemu)" {
		t.Fatalf("the model is %q", model)
	}
}
