//! The whole chain with Tekton Pipelines: what the README promises, on the real thing.

mod support;

use support::{World, cell};

#[test]
#[ignore = "needs a lab and up to an hour: cargo xtask test --tekton runs it"]
fn tekton_pipelines_from_source_to_a_matrix() {
    let world = World::new("tekton");
    let ran = world.nightly("run", &[]);
    assert_eq!(ran.code, 0);
    let counts = cell(&ran.run, "pipeline", "results.json")["counts"].clone();
    assert!(counts["passed"].as_u64().unwrap() >= 40, "{counts}");
    assert_eq!(counts["failed"], 0, "{counts}");
    assert_eq!(world.matrix_cell("pipeline", "linux/amd64")["version"], "v1.9.0");
    world.assert_matrix("pipeline", "linux/amd64", &["linux/arm64", "linux/s390x", "linux/ppc64le"]);
}
