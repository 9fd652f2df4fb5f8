module own

go 1.26
