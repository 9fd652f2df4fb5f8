// Command guest runs in a pod of a lab under test: it waits, or tries something once and says what came of it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		return
	}
	began := time.Now()
	said, err := try(os.Args[1], os.Args[2])
	if err != nil {
		said = err.Error()
	}
	// How long a refusal takes matters as much as the refusal.
	fmt.Printf("%s after %d ms\n", said, time.Since(began).Milliseconds())
	if err != nil {
		os.Exit(1)
	}
}

func try(verb, what string) (string, error) {
	switch verb {
	case "resolve":
		addresses, err := net.DefaultResolver.LookupHost(context.Background(), what)
		if err != nil {
			return "", err
		}
		return addresses[0], nil
	case "connect":
		connection, err := net.DialTimeout("tcp", what, 10*time.Second)
		if err != nil {
			return "", err
		}
		return "connected", connection.Close()
	case "serve":
		return "", serve(what)
	case "write":
		return "written", os.WriteFile(what, []byte("data"), 0o600)
	case "clock":
		return fmt.Sprint(time.Now().UnixMilli()), nil
	case "hostname":
		return os.Hostname()
	case "trust":
		return "trusted", trust(what)
	}
	return "", errors.New("unknown verb " + verb)
}

// trust asks a server, as FILE=ADDRESS, for a certificate that the authorities in the file have signed.
func trust(what string) error {
	file, address, _ := strings.Cut(what, "=")
	authorities, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	known := x509.NewCertPool()
	known.AppendCertsFromPEM(authorities)
	connection, err := tls.Dial("tcp", address, &tls.Config{RootCAs: known})
	if err != nil {
		return err
	}
	return connection.Close()
}

// serve accepts connections until it is ended.
func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		connection.Close()
	}
}
