// Package timeout hangs.
package timeout

import "testing"

func TestQuick(t *testing.T) {}
func TestHangs(t *testing.T) { t.Log("waiting for ever"); select {} }
func TestLater(t *testing.T) {}
