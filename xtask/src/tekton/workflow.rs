//! The same flow as a workflow of GitHub: one build, then a run for each architecture on a machine of its own.

use kit::{Result, ci::Ci};

const HEAD: &str = "\
# Generated from ci/architectures.toml and ci/components.toml by `cargo xtask generate`.
#
# What `cargo xtask nightly` does on one machine, on several: a build for all platforms, then for each architecture
# that has a `runner` its tests on that machine, in a lab there. No architecture waits for another.
name: nightly
on:
  schedule:
  - cron: \"SCHEDULE\"
  workflow_dispatch: {}
permissions:
  contents: read
  packages: write
concurrency: nightly
env:
  REPO: ghcr.io/${{ github.repository }}/nightly
jobs:
";

/// What a machine needs beside Rust, which GitHub's have. They are Ubuntu's, and bases are made of Debian's packages.
const PREPARE: &str = "    - uses: actions/checkout@v4
    - uses: actions/setup-go@v5
      with: {go-version: \"1.26\"}
    - run: |
        sudo apt-get update
        sudo apt-get install --yes runc iptables conntrack debian-archive-keyring
        for source in 'debian bookworm bookworm-updates' 'debian-security bookworm-security'; do
          printf 'Types: deb\\nURIs: http://deb.debian.org/%s\\nSuites: %s\\nComponents: main\\nSigned-By: %s\\n\\n' \\
            \"${source%% *}\" \"${source#* }\" /usr/share/keyrings/debian-archive-keyring.gpg
        done | sudo tee /etc/apt/sources.list.d/bookworm.sources
    - run: echo '${{ secrets.GITHUB_TOKEN }}' | docker login ghcr.io --username '${{ github.actor }}' --password-stdin
";

/// The workflow, as YAML.
///
/// # Errors
/// [`kit::Cause::Usage`] if the files are wrong.
pub(crate) fn workflow(ci: &Ci) -> Result<String> {
    let architectures = ci.architectures()?.architecture;
    let schedule = architectures.iter().find_map(|architecture| architecture.schedule.as_deref());
    let mut text = HEAD.replace("SCHEDULE", schedule.unwrap_or("5 1 * * *"));
    let platforms: Vec<_> = architectures.iter().map(|architecture| architecture.platform.to_string()).collect();
    let builder =
        architectures.iter().find_map(|architecture| architecture.runner.as_deref()).unwrap_or("ubuntu-24.04");
    for component in super::places::components(ci)? {
        let components = ci.components()?;
        let needs = components.get(&component).map(|one| one.needs.clone()).unwrap_or_default();
        text.push_str(&build(&component, builder, &platforms.join(",")));
        text.push_str(&format!(
            "  test-{component}:
    needs: [build-{component}]
    runs-on: ${{{{ matrix.runner }}}}
    timeout-minutes: 300
    strategy:
      fail-fast: false
      matrix:
        include:
"
        ));
        for architecture in &architectures {
            if let Some(runner) = &architecture.runner {
                text.push_str(&format!(
                    "        - {{platform: {}, name: {}, runner: {runner}}}\n",
                    architecture.platform,
                    architecture.platform.dir()
                ));
            }
        }
        text.push_str(&test(&component, needs.is_empty()));
    }
    text.push_str(&matrix(&super::places::components(ci)?, builder));
    Ok(text)
}

/// What all machines have found: one history, which goes on from night to night, and its matrix.
fn matrix(components: &[String], runner: &str) -> String {
    let tests: Vec<_> = components.iter().map(|component| format!("test-{component}")).collect();
    let tests = tests.join(", ");
    let key = "history-${{ github.run_id }}-${{ github.run_attempt }}";
    format!(
        "  matrix:
    needs: [{tests}]
    if: always()
    runs-on: {runner}
    timeout-minutes: 30
    steps:
    - uses: actions/checkout@v4
    - uses: actions/cache/restore@v4
      with: {{path: history, key: \"{key}\", restore-keys: history-}}
    - uses: actions/download-artifact@v4
      with: {{path: runs}}
    - run: |
        # A machine that was lost has left nothing, or half of it.
        for run in runs/build-*/ runs/test-*/*/; do
          cargo xtask support-matrix record \"$run\" --history history || echo \"$run is not recorded\"
        done
        cargo xtask support-matrix render --history history --format markdown >>\"$GITHUB_STEP_SUMMARY\"
    - if: always()
      uses: actions/cache/save@v4
      with: {{path: history, key: \"{key}\"}}
"
    )
}

fn build(component: &str, runner: &str, platforms: &str) -> String {
    format!(
        "  build-{component}:
    runs-on: {runner}
    timeout-minutes: 120
    outputs:
      release: ${{{{ steps.build.outputs.release }}}}
    steps:
{PREPARE}    - id: build
      run: |
        cargo xtask image-build build --component {component} --repo \"$REPO/{component}\" --run-dir run \\
          --platform {platforms} --results-dir results
        echo \"release=$(cat results/reference)\" >> \"$GITHUB_OUTPUT\"
    - if: always()
      uses: actions/upload-artifact@v4
      with: {{name: build-{component}, path: run}}
"
    )
}

/// A lab has no way out of the machine: the release is moved into its registry first. It needs root, and what root has
/// made nobody else can go on with: all of it is root's until the end.
fn test(component: &str, alone: bool) -> String {
    let release = if alone { " --release \"$(cat results/reference)\"" } else { "" };
    format!(
        "    steps:
{PREPARE}    - run: |
        cat >\"$RUNNER_TEMP/test.sh\" <<'END'
        cargo xtask lab up --until registry
        registry=$(cargo xtask lab status --output json | jq -r .registry)
        cargo xtask image-build copy '${{{{ needs.build-{component}.outputs.release }}}}' --to \"$registry/{component}\" \\
          --results-dir results
        cargo xtask nightly --component {component} --lab default \\
          --platform '${{{{ matrix.platform }}}}' --test-on '${{{{ matrix.platform }}}}'{release}
        END
        sudo --preserve-env env \"PATH=$PATH\" \"HOME=$HOME\" bash -euo pipefail \"$RUNNER_TEMP/test.sh\"
    - if: always()
      run: sudo chown --recursive \"$USER\" .
    - if: always()
      uses: actions/upload-artifact@v4
      with: {{name: \"test-{component}-${{{{ matrix.name }}}}\", path: target/runs}}
"
    )
}
