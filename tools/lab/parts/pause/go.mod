module other-arch/lab/pause

go 1.26.0
