package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const (
	selectedNode = "volume.kubernetes.io/selected-node"
	hostnameKey  = "kubernetes.io/hostname"
)

// folders makes and removes volumes that are folders under root, on the node of that name.
type folders struct {
	node string
	root string
}

// ShouldProvision leaves claims that the scheduler gave to other nodes to those nodes' provisioners.
func (f *folders) ShouldProvision(_ context.Context, claim *v1.PersistentVolumeClaim) bool {
	node := claim.Annotations[selectedNode]
	return node == "" || node == f.node
}

// ShouldDelete says whether the volume's data is on this node.
func (f *folders) ShouldDelete(_ context.Context, volume *v1.PersistentVolume) bool {
	return volume.Spec.HostPath != nil && filepath.Dir(volume.Spec.HostPath.Path) == f.root && f.holds(volume)
}

// Provision makes the folder. Any user of the pod may write: containers run as whoever they like, and the folder is theirs.
func (f *folders) Provision(_ context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	if mode := o.PVC.Spec.VolumeMode; mode != nil && *mode == v1.PersistentVolumeBlock {
		return nil, controller.ProvisioningFinished, fmt.Errorf("a folder cannot be a block device")
	}
	path := filepath.Join(f.root, o.PVName)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	// MkdirAll's mode passed through the umask.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	return f.volume(o, path), controller.ProvisioningFinished, nil
}

// Delete removes the data. A folder that has gone already is deleted.
func (f *folders) Delete(_ context.Context, volume *v1.PersistentVolume) error {
	return os.RemoveAll(filepath.Join(f.root, volume.Name))
}

func (f *folders) volume(o controller.ProvisionOptions, path string) *v1.PersistentVolume {
	kind := v1.HostPathDirectory
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			AccessModes:                   o.PVC.Spec.AccessModes,
			MountOptions:                  o.StorageClass.MountOptions,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: o.PVC.Spec.Resources.Requests[v1.ResourceStorage]},
			PersistentVolumeSource:        v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: path, Type: &kind}},
			NodeAffinity:                  f.affinity(),
		},
	}
}

func (f *folders) affinity() *v1.VolumeNodeAffinity {
	here := v1.NodeSelectorRequirement{Key: hostnameKey, Operator: v1.NodeSelectorOpIn, Values: []string{f.node}}
	terms := []v1.NodeSelectorTerm{{MatchExpressions: []v1.NodeSelectorRequirement{here}}}
	return &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: terms}}
}

// holds says whether the volume is bound to this node. Nodes have the same folders, so the path alone does not tell.
func (f *folders) holds(volume *v1.PersistentVolume) bool {
	if volume.Spec.NodeAffinity == nil || volume.Spec.NodeAffinity.Required == nil {
		return false
	}
	for _, term := range volume.Spec.NodeAffinity.Required.NodeSelectorTerms {
		for _, r := range term.MatchExpressions {
			if r.Key == hostnameKey && len(r.Values) == 1 && r.Values[0] == f.node {
				return true
			}
		}
	}
	return false
}
