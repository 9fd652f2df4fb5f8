// Command storage provisions the volumes of one node: a volume is a folder of that node, and its deletion removes the data.
package main

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the cluster")
	node := flag.String("node", "", "the node whose volumes these are")
	root := flag.String("root", "", "the folder that holds the volumes, absolute")
	name := flag.String("provisioner", "", "the name that storage classes use")
	flag.Parse()
	if *node == "" || *name == "" || !filepath.IsAbs(*root) {
		klog.ErrorS(nil, "-node, -provisioner and an absolute -root are needed")
		os.Exit(2)
	}
	if err := run(*kubeconfig, *name, &folders{node: *node, root: *root}); err != nil {
		klog.ErrorS(err, "cannot provision volumes")
		os.Exit(1)
	}
}

func run(kubeconfig, name string, volumes controller.Provisioner) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// One provisioner serves one node, so nobody is there to elect a leader among.
	controller.NewProvisionController(ctx, client, name, volumes, controller.LeaderElection(false)).Run(ctx)
	return nil
}
