package broken

import "testing"

func TestTwo(t *testing.T) { two() }
