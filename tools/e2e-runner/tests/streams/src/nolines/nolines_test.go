// Package nolines prints without ending its lines.
package nolines

import (
	"fmt"
	"os"
	"testing"
)

func TestNoNewline(t *testing.T)      { fmt.Print("no newline here") }
func TestNoNewlineFails(t *testing.T) { fmt.Print("nor here"); t.Fail() }
func TestBinary(t *testing.T)         { os.Stdout.Write([]byte{0, 1, 2, 0xff, 0xfe, '\n'}) }
func TestLooksLikeGo(t *testing.T) {
	fmt.Println("--- FAIL: TestNothing (0.00s)")
	fmt.Println("{\"Action\":\"fail\",\"Test\":\"TestForged\"}")
	fmt.Println("FAIL")
	fmt.Println("ok  \tsomething\t0.1s")
}
