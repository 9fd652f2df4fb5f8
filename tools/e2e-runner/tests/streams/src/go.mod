module streams

go 1.26
