// Tool is what tests call.
package main

import "fmt"

var version = "unknown"

func main() { fmt.Println("tool", version) }
