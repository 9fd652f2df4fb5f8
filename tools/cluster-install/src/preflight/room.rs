//! Free disk and memory of the nodes, as their kubelets measure them.

use cluster::KubeContext;
use futures::{StreamExt, stream};
use kit::{Cause, Result, record::Node};
use kube::{Client, api::GetParams};
use serde_json::Value;

use super::{limits::bytes, row::Row};

/// Nodes asked at the same time.
const PARALLEL: usize = 8;

/// What is left on a node, in bytes: of the disk that images and pods are on, and of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    disk: u64,
    memory: u64,
}

/// Asks each node's kubelet (`stats/summary`, which the API server passes on).
pub(crate) async fn rows(client: &Client, nodes: &[&Node], disk: u64, memory: u64) -> [Row; 2] {
    let asked = nodes.iter().map(|node| async move { (node.name.clone(), ask(client, &node.name).await) });
    let mut answers: Vec<_> = stream::iter(asked).buffer_unordered(PARALLEL).collect().await;
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    let of = |check, cause, least, get: fn(&Room) -> u64| {
        let (mut wrong, mut good) = (Vec::new(), Vec::new());
        for (node, answer) in &answers {
            match answer {
                Ok(room) if get(room) < least => {
                    wrong.push(format!("{node} has {} left, and {} are wanted", bytes(get(room)), bytes(least)));
                }
                Ok(room) => good.push(format!("{node} has {} left", bytes(get(room)))),
                Err(error) => return Row::error(check, error),
            }
        }
        Row::of(check, cause, &wrong, good.join("; "))
    };
    [of("disk", Cause::HostDisk, disk, |room| room.disk), of("memory", Cause::Node, memory, |room| room.memory)]
}

async fn ask(client: &Client, node: &str) -> Result<Room> {
    let what = || format!("cannot ask the kubelet of {node} how much is left");
    let request = kube::core::Request::new(format!("/api/v1/nodes/{node}/proxy/stats"));
    let request = request.get("summary", &GetParams::default()).map_err(kube::Error::BuildRequest).kube(what)?;
    let summary: Value = client.request(request).await.kube(what)?;
    Ok(room(&summary))
}

/// Of the disks for images and for containers the fuller one counts.
fn room(summary: &Value) -> Room {
    let node = &summary["node"];
    let disks = [&node["fs"], &node["runtime"]["imageFs"], &node["runtime"]["containerFs"]];
    let left = disks.into_iter().filter_map(|disk| disk["availableBytes"].as_u64()).min();
    Room { disk: left.unwrap_or(0), memory: node["memory"]["availableBytes"].as_u64().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_fuller_disk_counts() {
        let summary = json!({"node": {"memory": {"availableBytes": 7}, "fs": {"availableBytes": 30},
            "runtime": {"imageFs": {"availableBytes": 20}}}});
        assert_eq!(room(&summary), Room { disk: 20, memory: 7 });
        assert_eq!(room(&json!({})), Room { disk: 0, memory: 0 });
    }
}
