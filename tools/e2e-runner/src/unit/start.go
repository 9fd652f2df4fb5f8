// Command start runs a test program with its two outputs as one, as go test does. A container's outputs are read
// side by side, and what a test printed before it crashed would come after the crash, as nobody's.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	err := syscall.Dup3(1, 2, 0)
	if err == nil {
		err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Printf("cannot run %s: %v\n", os.Args[1], err)
	os.Exit(126)
}
