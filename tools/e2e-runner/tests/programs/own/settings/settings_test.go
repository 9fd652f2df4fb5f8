// Package settings holds tests that look at their component's settings, as
// Tekton's do.
package settings

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

var kubeconfig = flag.String("kubeconfig", "", "of the cluster")

// address of the ConfigMap, in a cluster that asks for no credentials.
func address(t *testing.T) string {
	t.Helper()
	config, err := os.ReadFile(*kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`server"?: *"?(http://[^"'\s,]+)`).FindSubmatch(config)
	return string(server[1]) + "/api/v1/namespaces/own-system/configmaps/flags"
}

func flags(t *testing.T) map[string]string {
	t.Helper()
	answer, err := http.Get(address(t))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var found struct{ Data map[string]string }
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil {
		t.Fatal(err)
	}
	return found.Data
}

// TestStable leaves something behind.
func TestStable(t *testing.T) {
	if flags(t)["mode"] == "alpha" {
		t.Skip("not with alpha features")
	}
	if os.Getenv("PROVOKE") == "both" {
		t.Fatal("told to fail")
	}
	patch, err := http.NewRequest("PATCH", address(t), strings.NewReader(`{"data":{"kept":"no","left":"behind"}}`))
	if err != nil {
		t.Fatal(err)
	}
	patch.Header.Set("Content-Type", "application/merge-patch+json")
	answer, err := http.DefaultClient.Do(patch)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
}

func TestAlpha(t *testing.T) {
	found := flags(t)
	if found["mode"] != "alpha" {
		t.Skip("needs alpha features")
	}
	if found["kept"] != "yes" || found["left"] != "" {
		t.Errorf("another test's settings are still there: %v", found)
	}
	switch os.Getenv("PROVOKE") {
	case "fail", "both":
		t.Fatal("told to fail")
	case "hang":
		// Whoever kills the runner leaves this behind for a while.
		time.Sleep(time.Minute)
	}
}

func TestPartly(t *testing.T) {
	t.Run("always", func(t *testing.T) {})
	t.Run("alpha", func(t *testing.T) {
		if flags(t)["mode"] != "alpha" {
			t.Skip("needs alpha features")
		}
	})
}

func TestNever(t *testing.T) { t.Skip("nobody can have what it needs") }
