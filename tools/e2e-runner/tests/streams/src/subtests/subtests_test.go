// Package subtests has subtests of any name, some of which fail.
package subtests

import (
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	for _, name := range []string{
		"plain", "with space", "a/b/c", "../../etc/passwd", "<b>html</b> & \"quotes\"", "new\nline", "tab\there",
		"", "", "ünïcödé ☃", "\x00\x1b[31mred", "bad\xffutf8", "(0.00s)", "--- FAIL: TestOther (1.00s)",
		strings.Repeat("long", 2500), "Case", "case",
	} {
		t.Run(name, func(t *testing.T) { t.Logf("in %q", t.Name()) })
	}
}

func TestDeep(t *testing.T) {
	t.Run("one", func(t *testing.T) {
		t.Run("two", func(t *testing.T) {
			t.Run("three", func(t *testing.T) { t.Error("deep below") })
			t.Run("four", func(t *testing.T) { t.Skip("not this") })
		})
	})
	t.Run("other", func(t *testing.T) {})
}
