module other-arch/lab/guest

go 1.26.0
