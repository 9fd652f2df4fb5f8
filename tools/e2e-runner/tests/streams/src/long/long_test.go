// Package long prints a line of many kilobytes.
package long

import (
	"fmt"
	"strings"
	"testing"
)

func TestLong(t *testing.T) {
	fmt.Println(strings.Repeat("0123456789", 2000))
	t.Error("after a long line")
}
