package main

import (
	"encoding/binary"
	"io"
	"math/bits"
	"os"
	"path"
	"strings"
	"syscall"
)

// Bytes of a file that are read. The whole answer stays below what a record may quote.
const (
	small = 256
	large = 4 << 10
)

// firmware is where a machine has its device tree. A container sees an empty folder there, so the pod of this
// program has the node's mounted elsewhere.
const firmware = "/sys/firmware"

var mounted = "/host-firmware"

// What machines say of themselves: z in /proc/sysinfo, others in a device tree or in DMI. Under these
// names it is told, wherever it was read.
var paths = map[string]int64{
	"/proc/sysinfo":                                       large,
	"/sys/class/dmi/id/sys_vendor":                        small,
	"/sys/class/dmi/id/product_name":                      small,
	"/sys/class/dmi/id/board_vendor":                      small,
	"/sys/class/dmi/id/bios_vendor":                       small,
	"/sys/firmware/devicetree/base/model":                 small,
	"/sys/firmware/devicetree/base/compatible":            small,
	"/sys/firmware/devicetree/base/hypervisor/compatible": small,
}

func files() map[string]string {
	found := map[string]string{}
	for name, limit := range paths {
		text := ""
		if rest, is := strings.CutPrefix(name, firmware); is {
			text = read(mounted+rest, limit)
		}
		if text == "" {
			text = read(name, limit)
		}
		if text != "" {
			found[name] = text
		}
	}
	found["/proc/cpuinfo"] = cpuinfo()
	return found
}

// read returns the beginning of a file, or nothing. Device trees end their strings with a zero byte.
func read(name string, limit int64) string {
	file, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	// What was read before an error is still true.
	text, _ := io.ReadAll(io.LimitReader(file, limit))
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", "\n"))
}

// cpuinfo returns the first processor and what stands after the last: a machine with many processors
// has megabytes between them.
func cpuinfo() string {
	text := read("/proc/cpuinfo", 8<<20)
	if len(text) <= 2*large {
		return text
	}
	return text[:large] + "\n...\n" + text[len(text)-large:]
}

// marks returns the words of a kernel's command line that a lab put there.
func marks(cmdline string) []string {
	var found []string
	for _, word := range strings.Fields(cmdline) {
		if strings.HasPrefix(word, "other-arch.") && len(found) < 8 {
			found = append(found, word[:min(len(word), small)])
		}
	}
	return found
}

func uname() (machine, release string) {
	var name syscall.Utsname
	if syscall.Uname(&name) != nil {
		return "", ""
	}
	return text(name.Machine[:]), text(name.Release[:])
}

// text reads a C string; its characters are signed or not, depending on the architecture.
func text[C int8 | uint8](chars []C) string {
	var bytes []byte
	for _, char := range chars {
		if char == 0 {
			break
		}
		bytes = append(bytes, byte(char))
	}
	return string(bytes)
}

func bigEndian() bool {
	return binary.NativeEndian.Uint16([]byte{0, 1}) == 1
}

// platform reads AT_PLATFORM (elf.h): the auxiliary vector holds its address in our own memory.
func platform() string {
	const atPlatform = 15
	vector, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		return ""
	}
	memory, err := os.Open("/proc/self/mem")
	if err != nil {
		return ""
	}
	defer memory.Close()
	for _, pair := range pairs(vector) {
		if pair[0] == atPlatform {
			var name [32]byte
			count, _ := memory.ReadAt(name[:], int64(pair[1]))
			return text(name[:count])
		}
	}
	return ""
}

// pairs cuts an auxiliary vector into its entries.
func pairs(vector []byte) [][2]uint64 {
	const word = bits.UintSize / 8
	value := func(bytes []byte) uint64 {
		if word == 4 {
			return uint64(binary.NativeEndian.Uint32(bytes))
		}
		return binary.NativeEndian.Uint64(bytes)
	}
	var found [][2]uint64
	for ; len(vector) >= 2*word; vector = vector[2*word:] {
		found = append(found, [2]uint64{value(vector), value(vector[word:])})
	}
	return found
}

// mapped names the files in this process's memory, past what an emulator shows of /proc/self, without
// this program itself.
func mapped() []string {
	own, _ := os.Executable()
	var found []string
	for line := range strings.Lines(read("/proc/thread-self/maps", 64<<10)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || !strings.HasPrefix(fields[5], "/") || fields[5] == own {
			continue
		}
		name := path.Base(fields[5])
		if len(found) < 8 && (len(found) == 0 || found[len(found)-1] != name) {
			found = append(found, name[:min(len(name), small)])
		}
	}
	return found
}
