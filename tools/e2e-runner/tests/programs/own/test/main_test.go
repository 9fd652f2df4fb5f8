// Package test filters its own tests, as Tekton's does: each category sets the
// flag that -test.run sets.
package test

import (
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"testing"
	"time"
)

var (
	category   = flag.String("category", "", "serial or parallel")
	kubeconfig = flag.String("kubeconfig", "", "of the cluster")
)

func TestMain(m *testing.M) {
	flag.Parse()
	switch *category {
	case "serial":
		flag.Set("test.run", "^(TestSerial|TestEnvironment|TestWaits|TestConnects)$")
	case "parallel":
		flag.Set("test.run", "^(TestParallel|TestOther|TestSubtests|TestProvoked)$")
	}
	os.Exit(m.Run())
}

func TestSerial(t *testing.T) { t.Log("alone") }

func TestParallel(t *testing.T) { t.Parallel() }

func TestOther(t *testing.T) { t.Error("nobody asked for me") }

// TestNowhere is in no category.
func TestNowhere(t *testing.T) {}

func TestSubtests(t *testing.T) {
	t.Run("good", func(t *testing.T) {})
	t.Run("needs the internet", func(t *testing.T) { t.Error("there is none") })
}

func TestEnvironment(t *testing.T) {
	if *kubeconfig == "" || os.Getenv("KUBECONFIG") != *kubeconfig {
		t.Errorf("KUBECONFIG=%q, -kubeconfig=%q", os.Getenv("KUBECONFIG"), *kubeconfig)
	}
	if os.Getenv("OWN") != "for linux" {
		t.Errorf("OWN=%q", os.Getenv("OWN"))
	}
	if _, err := os.Stat("main_test.go"); err != nil {
		t.Errorf("the working directory is not the package's: %v", err)
	}
}

// TestProvoked goes wrong as its environment says.
func TestProvoked(t *testing.T) {
	switch file := os.Getenv("PROVOKE_FILE"); os.Getenv("PROVOKE") {
	case "fail":
		t.Fatal("told to fail")
	case "flake":
		if _, err := os.Stat(file); err != nil {
			os.WriteFile(file, nil, 0o600)
			t.Fatal("told to fail the first time")
		}
	case "stall":
		if _, err := os.Stat(file); err != nil {
			os.WriteFile(file, nil, 0o600)
			time.Sleep(time.Hour)
		}
	case "leaf":
		t.Run("good", func(t *testing.T) {})
		t.Run("more/two", func(t *testing.T) {
			if _, err := os.Stat(file); err != nil {
				os.WriteFile(file, nil, 0o600)
				t.Fatal("told to fail the first time")
			}
		})
	case "panic":
		panic("told to panic")
	case "exit":
		os.Exit(7)
	case "hang":
		time.Sleep(time.Hour)
	case "flood":
		for i := range 400_000 {
			fmt.Println(i, "a line of output that nobody will ever read to its end")
		}
		t.Fatal("after the flood")
	}
}

// TestConnects asks the cluster's API server for a connection, for a while.
func TestConnects(t *testing.T) {
	config, err := os.ReadFile(*kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`server"?: *"?(https://[^"\s]+)`).FindSubmatch(config)
	server, err := url.Parse(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	for range 40 {
		connection, err := net.DialTimeout("tcp", server.Host, time.Second)
		if err != nil {
			t.Fatalf("Get \"%s/api/v1/pods\": %v", server, err)
		}
		connection.Close()
		time.Sleep(250 * time.Millisecond)
	}
}

// TestWaits takes so long that something can happen meanwhile, and then finds
// something to complain about.
func TestWaits(t *testing.T) {
	time.Sleep(8 * time.Second)
	t.Error("wanted 2, got 1")
}
