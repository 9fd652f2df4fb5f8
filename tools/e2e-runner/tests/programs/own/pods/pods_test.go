// Package pods holds tests that make pods, and that wait for them as long as
// a fast machine needs.
package pods

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

const patience = 1 * time.Second

var kubeconfig = flag.String("kubeconfig", "", "of the cluster")

func post(t *testing.T, path, object string) {
	t.Helper()
	config, err := os.ReadFile(*kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`server"?: *"?(http://[^"'\s,]+)`).FindSubmatch(config)
	answer, err := http.Post(string(server[1])+path, "application/json", strings.NewReader(object))
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
}

// TestPod makes one where the environment says, as a scheduler would.
func TestPod(t *testing.T) {
	post(t, "/api/v1/namespaces", `{"kind":"Namespace","metadata":{"name":"test-1"}}`)
	pod := `{"kind":"Pod","metadata":{"name":"p","namespace":"test-1","uid":"p"},"spec":{"nodeName":%q,"containers":[]}}`
	post(t, "/api/v1/namespaces/test-1/pods", fmt.Sprintf(pod, os.Getenv("NODE")))
	time.Sleep(2 * time.Second)
	if os.Getenv("PROVOKE") == "hang" {
		time.Sleep(time.Minute)
	}
}

// TestPatience passes if it may wait longer than its authors had thought.
func TestPatience(t *testing.T) {
	select {
	case <-time.After(patience):
		t.Fatal("it was not there in " + patience.String())
	case <-time.After(1500 * time.Millisecond):
	}
}
