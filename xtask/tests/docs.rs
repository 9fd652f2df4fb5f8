//! What the documents say of the code is true: causes, exit codes, dependencies, tools, commands.

use std::{fs, path::Path};

fn read(file: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(file)).unwrap()
}

#[test]
fn architecture_names_every_cause_with_its_exit_code() {
    let text = read("ARCHITECTURE.md");
    for cause in kit::Cause::ALL {
        let row = text.lines().find(|line| line.starts_with('|') && line.contains(cause.name()));
        let row = row.unwrap_or_else(|| panic!("{cause} is in no table of ARCHITECTURE.md"));
        let code = cause.exit().0.to_string();
        let named = row.contains(&format!("{cause} {code}")) || row.rsplit('|').nth(1).unwrap().contains(&code);
        assert!(named, "{cause} has exit code {code}: {row}");
    }
}

#[test]
fn architecture_says_why_each_dependency_is_there() {
    let (text, manifest) = (read("ARCHITECTURE.md"), read("Cargo.toml"));
    let table = manifest.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let ours = |line: &&str| line.contains(" = ") && !line.contains("path = ");
    for line in table.lines().filter(ours) {
        let name = line.split(" = ").next().unwrap();
        let said = text
            .lines()
            .filter(|row| row.starts_with("| "))
            .any(|row| row.split('|').nth(1).unwrap().split([',', '(']).any(|word| word.trim() == name));
        assert!(said, "ARCHITECTURE.md does not say why {name} is there");
    }
}

#[test]
fn readme_names_every_exit_code_and_tool_and_no_figure_is_missing() {
    let text = read("README.md");
    for code in 0..=5 {
        assert!(text.lines().any(|line| line.starts_with(&format!("| {code} |"))), "exit code {code}");
    }
    for tool in ["image-build", "cluster-install", "e2e-runner", "cleanup", "support-matrix"] {
        assert!(text.lines().any(|line| line.starts_with(&format!("| {tool} |"))), "{tool}");
    }
    assert!(text.contains("cargo xtask nightly") && text.contains("cargo xtask test"));
    assert!(!text.contains("@@"), "a figure is missing");
}
