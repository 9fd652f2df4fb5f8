package main

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"io"
	"sort"
)

// work is what programs of a cluster do all day: they build objects, write and read them as JSON,
// sort, compress and unpack. Nothing of it has assembly for some architectures and not for others,
// so that the same work is compared. It takes some 30 ms on a server of 2023.
func work() int {
	type object struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
		Values []uint64          `json:"values"`
	}
	seed := uint64(1)
	next := func() uint64 {
		// Knuth's MMIX generator.
		seed = seed*6364136223846793005 + 1442695040888963407
		return seed >> 33
	}
	objects := make([]object, 3000)
	for i := range objects {
		values := make([]uint64, 16)
		for j := range values {
			values[j] = next()
		}
		objects[i] = object{fmt.Sprintf("object-%d", next()), map[string]string{"app": fmt.Sprint(next() % 7)}, values}
	}
	sort.Slice(objects, func(i, j int) bool { return objects[i].Name < objects[j].Name })
	written, err := json.Marshal(objects)
	must(err)
	var packed bytes.Buffer
	compressor, err := flate.NewWriter(&packed, flate.BestSpeed)
	must(err)
	_, err = compressor.Write(written)
	must(err)
	must(compressor.Close())
	unpacked, err := io.ReadAll(flate.NewReader(&packed))
	must(err)
	var again []object
	must(json.Unmarshal(unpacked, &again))
	return len(again)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
