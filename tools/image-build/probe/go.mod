module other-arch/probe

go 1.26
