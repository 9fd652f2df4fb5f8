// Package held holds tests that fail, and that clean up behind themselves
// before anybody knows it.
package held

import (
	"flag"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

var kubeconfig = flag.String("kubeconfig", "", "of the cluster")

func ask(t *testing.T, method, path, object string) {
	t.Helper()
	config, err := os.ReadFile(*kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	server := regexp.MustCompile(`server"?: *"?(http://[^"'\s,]+)`).FindSubmatch(config)
	request, err := http.NewRequest(method, string(server[1])+path, strings.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	answer.Body.Close()
}

// place makes a namespace with a pod whose only container is in that state.
func place(t *testing.T, name, phase, state string) {
	t.Helper()
	t.Logf("Create namespace %s to deploy to", name)
	ask(t, "POST", "/api/v1/namespaces", `{"kind":"Namespace","metadata":{"name":"`+name+`"}}`)
	ask(t, "POST", "/api/v1/namespaces/"+name+"/pods", `{"kind":"Pod",
		"metadata":{"name":"p","namespace":"`+name+`","uid":"`+name+`"},
		"spec":{"nodeName":"n1","containers":[{"name":"c","image":"r.example/x:1"}]},
		"status":{"phase":"`+phase+`","containerStatuses":[{"name":"c","image":"","imageID":"","ready":false,
			"restartCount":0,"state":`+state+`}]}}`)
	ask(t, "POST", "/api/v1/namespaces/"+name+"/events", `{"kind":"Event","type":"Warning","reason":"Odd",
		"metadata":{"name":"e","namespace":"`+name+`","uid":"e-`+name+`"},"message":"seen in `+name+`",
		"involvedObject":{"kind":"Pod","name":"p","namespace":"`+name+`","uid":"`+name+`"}}`)
	time.Sleep(1500 * time.Millisecond)
}

func TestFails(t *testing.T) {
	place(t, "test-fails", "Failed", `{"terminated":{"exitCode":1}}`)
	ask(t, "DELETE", "/api/v1/namespaces/test-fails/pods/p", "")
	t.Error("wanted 2, got 1")
}

func TestPulls(t *testing.T) {
	place(t, "test-pulls", "Pending", `{"waiting":{"reason":"ErrImagePull","message":"connection refused"}}`)
	t.Error("it was not there in time")
}

func TestPasses(t *testing.T) {
	place(t, "test-passes", "Succeeded", `{"terminated":{"exitCode":0}}`)
}
