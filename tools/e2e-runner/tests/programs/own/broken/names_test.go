package broken

import "testing"

func TestBroken(t *testing.T) {}

func TestLeftOut(t *testing.T) {}
