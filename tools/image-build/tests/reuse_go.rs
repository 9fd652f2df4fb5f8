//! What makes `build --reuse` build again, with a real Go and real sources; ko and the registry stand in.

mod component;
#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

use std::fs;

use component::{World, ko};
use kit::Platform;

const MAIN: &str = "package main\n\nimport (\n\t_ \"embed\"\n\n\t\"e.com/lib\"\n)\n\n//go:embed text\nvar text string\n\n\
                    func main() { println(text, lib.Deep()) }\n";

/// Nothing of a test: see [`ko`].
#[test]
fn stand_in_ko() {
    ko::run();
}

/// A command that embeds a file and needs a library next to its module, which needs another.
fn world() -> World {
    let world = World::new();
    world.build("x", &[Platform::host().arch.as_str()]);
    world.write("x/go.mod", "module e.com/x\n\ngo 1.24\n\nrequire e.com/lib v0.0.0\n\nreplace e.com/lib => ../lib\n");
    world.write("x/cmd/x/main.go", MAIN);
    world.write("x/cmd/x/text", "hello");
    world.write("lib/go.mod", "module e.com/lib\n\ngo 1.24\n");
    world.write(
        "lib/lib.go",
        "package lib\n\nimport \"e.com/lib/deep\"\n\n//go:noinline\nfunc Deep() int { return deep.Number() }\n",
    );
    world.write("lib/deep/deep.go", "package deep\n\n//go:noinline\nfunc Number() int { return 1 }\n");
    world
}

/// Whether ko was called.
fn built(world: &World, env: &[(&str, &str)]) -> bool {
    let _ = fs::remove_file(world.path("called"));
    let host = Platform::host().to_string();
    let ended = world.build_with(&["--reuse", "--platform", &host], env);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(!ended.err.contains("not to be reused"), "{}", ended.err);
    world.path("called").exists()
}

#[test]
fn go_tells_every_change_that_reaches_the_program_and_no_other() {
    let world = world();
    assert!(built(&world, &[]) && !built(&world, &[]));
    for (name, from, to) in [
        ("x/cmd/x/main.go", "println(text", "println(2, text"),
        ("x/cmd/x/text", "hello", "other"),
        // Nothing that imports it has another content: only what is linked changes.
        ("lib/deep/deep.go", "return 1", "return 2"),
        ("lib/lib.go", "deep.Number()", "deep.Number() + 1"),
        ("x/go.mod", "go 1.24\n", "go 1.24\n\ngodebug panicnil=1\n"),
    ] {
        let text = world.read(name);
        assert!(text.contains(from), "{name}");
        world.write(name, text.replace(from, to));
        assert!(built(&world, &[]), "{name} changed and nothing was built");
        assert!(!built(&world, &[]), "{name}");
    }
    // None of these reaches the program.
    world.write("x/cmd/x/main_test.go", "package main\n");
    world.write("x/README.md", "text");
    world.write("x/cmd/y/main.go", "package main\n\nfunc main() {}\n");
    assert!(!built(&world, &[("GOAMD64", "v3"), ("GOEXPERIMENT", "x"), ("GOFLAGS", "-race"), ("CGO_ENABLED", "1")]));
    // What `go env -w` has set is not taken away, and counts.
    world.write("goenv", "GOAMD64=v3\nGOARM64=v8.1\nGOPPC64=power9\n");
    assert!(built(&world, &[("GOENV", &world.name("goenv"))]), "Go's own settings");
    assert!(!built(&world, &[]));
}

#[test]
fn the_same_sources_are_the_same_on_another_machine() {
    let world = world();
    assert!(built(&world, &[("GOCACHE", &world.name("cache-1"))]));
    fs::create_dir(world.path("elsewhere")).unwrap();
    for folder in ["x", "lib"] {
        fs::rename(world.path(folder), world.path(&format!("elsewhere/{folder}"))).unwrap();
    }
    world.write("ci/components.toml", "[x]\npath = 'elsewhere/x'\nconfig = ['config']\n");
    assert!(!built(&world, &[("GOCACHE", &world.name("cache-2"))]));
}
