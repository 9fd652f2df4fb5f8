//! What pods reach: names of the cluster, and the internet where it is asked for. Seen by the probe, in a pod
//! on each node.

use std::collections::BTreeMap;

use cluster::nature::Facts;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kit::Cause;
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::row::Row;

/// The API server's own name, which every cluster has (kubernetes.io/docs, "DNS for Services and Pods").
pub(crate) const OWN_NAME: &str = "kubernetes.default.svc";
/// Services of cluster DNS: of Kubernetes itself, and of OpenShift.
const DNS: [(&str, &str); 2] = [("kube-system", "kube-dns"), ("openshift-dns", "dns-default")];

/// What the probe is asked to try.
pub(crate) fn arguments(internet: &[String]) -> Vec<String> {
    let connect = internet.iter().map(|address| format!("-connect={address}"));
    std::iter::once(format!("-resolve={OWN_NAME}")).chain(connect).collect()
}

/// By node.
pub(crate) type Seen = BTreeMap<String, Facts>;

/// Whether pods find names.
pub(crate) async fn dns(client: &Client, seen: &Seen) -> Row {
    if seen.values().any(|facts| facts.names.contains_key(OWN_NAME)) {
        let (wrong, good) = judge(seen, |facts| &facts.names, OWN_NAME);
        return Row::of("dns", Cause::Dns, &wrong, format!("{OWN_NAME} has an address on {}", good.join(", ")));
    }
    let slices = match Api::<EndpointSlice>::all(client.clone()).list(&ListParams::default()).await {
        Ok(slices) => slices,
        Err(error) => return Row::error("dns", &cluster::fail("cannot look for cluster DNS", &error)),
    };
    let named = |slice: &&EndpointSlice| {
        DNS.iter().any(|(namespace, service)| {
            slice.namespace().as_deref() == Some(namespace)
                && slice.labels().get("kubernetes.io/service-name").map(String::as_str) == Some(service)
        })
    };
    let ready =
        |slice: &EndpointSlice| DNS.iter().any(|(ns, service)| crate::webhooks::has_endpoint(slice, ns, service));
    let of_dns: Vec<_> = slices.iter().filter(named).collect();
    match of_dns.iter().any(|slice| ready(slice)) {
        true => Row::note("dns", "cluster DNS is there; no pod has asked it (--probe)"),
        false => {
            Row::unfit("dns", Cause::Dns, "no service of cluster DNS (kube-dns, dns-default) has a ready endpoint")
        }
    }
}

/// Whether pods reach these addresses.
pub(crate) fn internet(seen: &Seen, wanted: &[String]) -> Row {
    if wanted.is_empty() {
        return Row::not_tried("internet", "nobody asked for it (--internet HOST:PORT)");
    }
    if seen.is_empty() {
        return Row::not_tried("internet", "only a pod can tell (--probe)");
    }
    let all = wanted.iter().map(|address| judge(seen, |facts| &facts.connections, address));
    let wrong: Vec<_> = all.flat_map(|(wrong, _)| wrong).collect();
    let cause = if wrong.iter().any(|line| line.contains("lookup ")) { Cause::Dns } else { Cause::ClusterUnreachable };
    Row::of("internet", cause, &wrong, format!("{} reached from every node", wanted.join(", ")))
}

/// What went wrong by node, and the nodes where it went well.
fn judge(seen: &Seen, get: fn(&Facts) -> &BTreeMap<String, String>, what: &str) -> (Vec<String>, Vec<String>) {
    let (mut wrong, mut good) = (Vec::new(), Vec::new());
    for (node, facts) in seen {
        match get(facts).get(what).map(String::as_str) {
            Some("") => good.push(node.clone()),
            Some(why) => wrong.push(format!("{what} from a pod on {node}: {}", why.trim())),
            None => wrong.push(format!("{what} from a pod on {node}: the probe says nothing; build it anew")),
        }
    }
    (wrong, good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::row::Answer;

    fn seen(address: &str, why: &str) -> Seen {
        let connections = BTreeMap::from([(address.to_owned(), why.to_owned())]);
        Seen::from([("n1".to_owned(), Facts { connections, ..Facts::default() })])
    }

    #[test]
    fn the_internet_is_asked_for_only_where_it_is_wanted() {
        let wanted = ["x.example:443".to_owned()];
        assert_eq!(internet(&Seen::new(), &[]).answer, Answer::NotTried);
        assert_eq!(internet(&Seen::new(), &wanted).answer, Answer::NotTried);
        assert_eq!(internet(&seen("x.example:443", ""), &wanted).answer, Answer::Fit);
        let row = internet(&seen("x.example:443", "dial tcp 1.2.3.4:443: i/o timeout"), &wanted);
        assert_eq!(row.cause, Some(Cause::ClusterUnreachable));
        assert_eq!(row.line, "x.example:443 from a pod on n1: dial tcp 1.2.3.4:443: i/o timeout");
        let row = internet(&seen("x.example:443", "dial tcp: lookup x.example: no such host"), &wanted);
        assert_eq!(row.cause, Some(Cause::Dns));
        assert_eq!(internet(&seen("other:1", ""), &wanted).answer, Answer::Unfit);
    }

    #[test]
    fn the_probe_is_told_what_to_try() {
        assert_eq!(arguments(&["a:1".into()]), ["-resolve=kubernetes.default.svc", "-connect=a:1"]);
    }
}
