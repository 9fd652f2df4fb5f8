package plain

import "fmt"

func greet() { fmt.Println("hello") }
