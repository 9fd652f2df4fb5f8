package main

import (
	"context"
	"flag"
	"net"
	"sync"
	"time"
)

// How long one name or one connection may take: clients of a cluster wait no longer either.
const patience = 10 * time.Second

// asked is an option that may be given several times.
type asked []string

func (a *asked) String() string { return "" }

func (a *asked) Set(value string) error {
	*a = append(*a, value[:min(len(value), small)])
	return nil
}

// network looks up names and connects to addresses, as the command line wants it: what a pod reaches, only
// a pod can tell. The answers say why something is not reached, and are empty where it is.
func network() (names, connections map[string]string) {
	var resolve, connect asked
	flag.Var(&resolve, "resolve", "look up this `name`")
	flag.Var(&connect, "connect", "connect to this `host:port`")
	flag.Parse()
	names = each(resolve, func(ctx context.Context, name string) error {
		_, err := net.DefaultResolver.LookupHost(ctx, name)
		return err
	})
	connections = each(connect, func(ctx context.Context, address string) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			err = connection.Close()
		}
		return err
	})
	return names, connections
}

func each(what asked, try func(context.Context, string) error) map[string]string {
	found := map[string]string{}
	var lock sync.Mutex
	var all sync.WaitGroup
	for _, one := range what {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			answer := ""
			if err := try(ctx, one); err != nil {
				answer = err.Error()
			}
			lock.Lock()
			defer lock.Unlock()
			found[one] = answer[:min(len(answer), small)]
		})
	}
	all.Wait()
	return found
}
