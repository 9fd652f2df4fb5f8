// Command probe says what the machine that it runs on says of itself, and how long a small fixed
// piece of work takes there. It judges nothing: what the facts mean is decided by whoever asked
// (tools/lib/cluster, nature), who has them all in one place and tests them against captured ones.
//
// It prints one line of JSON, bounded in size, and needs no rights.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// The work is done again and again, at least so often and so long, so that some rounds are not disturbed
// by what else runs there: a pod that starts keeps its node busy.
const (
	leastRounds = 5
	mostRounds  = 100
	leastTime   = time.Second
)

// Facts are printed as they were found; what is not there is left out.
type Facts struct {
	SchemaVersion string `json:"schemaVersion"`
	// What this program was compiled for.
	GOARCH string `json:"goarch"`
	// As uname says it, which an emulator of programs makes up.
	Machine string `json:"machine"`
	Release string `json:"release"`
	// As the kernel says it, which no emulator of programs makes up (Linux 6.1 and later).
	KernelArch string `json:"kernelArch,omitempty"`
	PageSize   int    `json:"pageSize"`
	BigEndian  bool   `json:"bigEndian"`
	// What the kernel tells programs of the processor (AT_PLATFORM).
	Platform string `json:"platform,omitempty"`
	// Files that are mapped beside this program: an emulator of programs is one.
	Mapped []string `json:"mapped,omitempty"`
	// What the processor calls its hypervisor (x86, CPUID leaf 0x40000000); empty without one.
	Hypervisor *string `json:"hypervisor,omitempty"`
	// Words of the kernel's command line that are ours. The others are nobody's business.
	Marks []string `json:"marks,omitempty"`
	// Whole small files, by path.
	Files map[string]string `json:"files"`
	// Processor time of each round of the work. Time by the clock would also tell how busy the node is, and
	// that a pod which asks for little has the last turn there.
	WorkNanoseconds []int64 `json:"workNanoseconds"`
	// What it was asked to look up (-resolve) and to connect to (-connect), with what stood in the way.
	Names       map[string]string `json:"names,omitempty"`
	Connections map[string]string `json:"connections,omitempty"`
}

func main() {
	names, connections := network()
	facts := collect()
	facts.Names, facts.Connections = names, connections
	first := time.Now()
	for round := 0; round < leastRounds || (round < mostRounds && time.Since(first) < leastTime); round++ {
		began := processorTime()
		work()
		facts.WorkNanoseconds = append(facts.WorkNanoseconds, processorTime()-began)
	}
	line, err := json.Marshal(facts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
	fmt.Println(string(line))
}

// processorTime is what all threads of this program have used so far.
func processorTime() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func collect() Facts {
	machine, release := uname()
	return Facts{
		SchemaVersion: "1.0",
		GOARCH:        runtime.GOARCH,
		Machine:       machine,
		Release:       release,
		KernelArch:    strings.TrimSpace(read("/proc/sys/kernel/arch", small)),
		PageSize:      os.Getpagesize(),
		BigEndian:     bigEndian(),
		Platform:      platform(),
		Mapped:        mapped(),
		Hypervisor:    hypervisor(),
		Marks:         marks(read("/proc/cmdline", large)),
		Files:         files(),
	}
}
