package main

import "encoding/binary"

// cpuid asks the processor (Intel's manual, volume 2, CPUID).
func cpuid(leaf uint32) (eax, ebx, ecx, edx uint32)

// hypervisor is the name in leaf 0x40000000, which is there if leaf 1 has the hypervisor's bit: every
// hypervisor and emulator of whole machines sets it.
func hypervisor() *string {
	name := ""
	if _, _, ecx, _ := cpuid(1); ecx&(1<<31) != 0 {
		_, ebx, ecx, edx := cpuid(0x40000000)
		var bytes [12]byte
		for i, word := range []uint32{ebx, ecx, edx} {
			binary.LittleEndian.PutUint32(bytes[4*i:], word)
		}
		name = text(bytes[:])
		if name == "" {
			name = "one without a name"
		}
	}
	return &name
}
