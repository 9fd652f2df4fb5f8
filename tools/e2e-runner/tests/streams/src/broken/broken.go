// Package broken does not compile.
package broken

func two() int { return "two" }
