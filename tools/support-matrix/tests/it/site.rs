//! The site as files: every link leads somewhere, nothing comes from elsewhere, and only what changed is written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kit::{
    Cause, Error,
    record::{Status, Test},
};

use crate::{
    golden::everything,
    world::{World, passing, test},
    year::year,
};

fn write(world: &World, date: &str) -> serde_json::Value {
    let out = world.path("site").display().to_string();
    let (code, json) = world.json(&["site", "--out", &out, "--as-of", date]);
    assert_eq!(code, 0, "{json}");
    json
}

fn pages(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|ending| ending == "html" || ending == "svg") {
                found.insert(path.clone(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

fn attributes(page: &str, name: &str) -> Vec<String> {
    let needle = format!(" {name}=\"");
    let values = page.split(&needle).skip(1).map(|rest| rest.split('"').next().unwrap());
    values.map(|value| value.replace("&#x2f;", "/")).collect()
}

#[test]
fn links_lead_somewhere_and_nothing_comes_from_elsewhere() {
    for (world, date) in [(year(), "2025-06-20"), (everything(), "2026-01-12")] {
        write(&world, date);
        let pages = pages(&world.path("site"));
        assert!(pages.len() > 15, "{}", pages.len());
        for (path, page) in &pages {
            let name = path.display();
            assert!(!page.contains("<script") && !page.contains("javascript:"), "{name}");
            assert!(!page.contains("url(") && !page.contains("@import"), "{name}");
            assert!(!page.chars().any(|c| c != '\n' && kit::ui::is_hostile(c)), "{name}");
            for source in attributes(page, "src") {
                assert!(path.parent().unwrap().join(&source).is_file(), "{name}: {source}");
            }
            let ids = attributes(page, "id");
            for link in attributes(page, "href") {
                let (file, part) = link.split_once('#').unwrap_or((&link, ""));
                match link.as_str() {
                    "data:," => continue,
                    // The only ways out: what a person follows by a click.
                    link if link.starts_with("http") => {
                        assert_eq!(link, "https://example.com/1", "{name}");
                        continue;
                    }
                    _ => {}
                }
                let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
                let text = fs::read_to_string(&target).unwrap_or_else(|error| panic!("{name}: {link}: {error}"));
                let there = if file.is_empty() { ids.clone() } else { attributes(&text, "id") };
                assert!(part.is_empty() || there.iter().any(|id| id == part), "{name}: {link}");
            }
            let mut sorted = ids.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), ids.len(), "{name}: each id once");
        }
    }
}

#[test]
fn a_red_cell_leads_to_the_line_of_its_cause() {
    let world = year();
    write(&world, "2025-03-02");
    let pages = pages(&world.path("site"));
    let cell =
        pages.iter().find(|(path, _)| path.to_string_lossy().contains("cells/climber_v1.0.0_linux-s390x")).unwrap();
    let link =
        attributes(cell.1, "href").into_iter().find(|link| link.contains("#cause-")).expect("a link to the cause");
    let run = fs::read_to_string(cell.0.parent().unwrap().join(link.split('#').next().unwrap())).unwrap();
    let id = format!("id=\"{}\"", link.split_once('#').unwrap().1);
    assert!(run.contains(&id) && run.contains("<details class=\"test\" open>"), "{run}");
    assert!(run.contains("<mark id=\"log-1\">    endian_test.go:42: got 0x0100, want 0x0001</mark>"), "{run}");
    assert!(run.contains("--- FAIL: TestEndian &lt;b&gt;"), "what follows is there as well, escaped");
    assert!(run.contains("All 7 tests and subtests"));
}

/// One run, two platforms, two causes.
#[test]
fn each_red_cell_of_one_run_leads_to_its_own_cause() {
    let world = World::new();
    let run = world.run(10, "both").asked("p", &["linux/amd64", "linux/s390x"]).built("p", "v1", |_| ());
    let run = run.installed("p", "v1", "linux/amd64", |install| {
        install.head = install.head.clone().failed(&Error::new(Cause::ClusterUnreachable, "no answer"));
    });
    let bad = Test { line: Some("x_test.go:1: got 1".into()), ..test("TestBad", Status::Failed, Some(Cause::Product)) };
    let run = run.installed("p", "v1", "linux/s390x", |_| ());
    world.record(&run.tested("p", "v1", "linux/s390x", vec![bad], |_| ()).ended()).unwrap();
    write(&world, "2026-01-12");
    let pages = pages(&world.path("site"));
    for (on, said) in [("linux-amd64", "cluster-unreachable"), ("linux-s390x", "x_test.go:1: got 1")] {
        let name = format!("cells/p_v1_{on}_");
        let (path, cell) = pages.iter().find(|(path, _)| path.to_string_lossy().contains(&name)).unwrap();
        let link = attributes(cell, "href").into_iter().find(|link| link.contains("#cause-")).unwrap();
        let (file, id) = link.split_once('#').unwrap();
        let run = fs::read_to_string(path.parent().unwrap().join(file)).unwrap();
        let there: String = run.split(&format!("id=\"{id}\"")).nth(1).unwrap().chars().take(300).collect();
        assert!(there.contains(said), "{on}: {there}");
    }
}

/// A year of releases is no year of rows.
#[test]
fn versions_that_newer_ones_have_replaced_are_folded_away() {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    world.config("policy.toml", &format!("{policy}\n[states]\nunknown = 20\n"));
    for (day, version) in [(1, "v1.0.0"), (2, "v1.1.0"), (30, "v1.2.0"), (31, "v1.2.1")] {
        world.record(&world.run(day, "r").good("p", version, passing(3))).unwrap();
    }
    // Nothing newer is known of it: it stays, however old it is.
    world.record(&world.run(1, "only").good("q", "v7", passing(3))).unwrap();
    write(&world, "2026-01-31");
    let table = |name: &str| {
        let page = fs::read_to_string(world.path("site").join(name)).unwrap();
        page.split("</table>").next().unwrap().to_owned()
    };
    let (index, older) = (table("index.html"), table("older.html"));
    let has = |table: &str, version: &str| table.contains(&format!("<small>{version}, built here"));
    for (version, current) in [("v1.0.0", false), ("v1.1.0", false), ("v1.2.0", false), ("v1.2.1", true), ("v7", true)]
    {
        assert_eq!((has(&index, version), has(&older, version)), (current, !current), "{version}");
    }
    for (format, file) in [("terminal", "matrix.txt"), ("markdown", "matrix.md"), ("html", "matrix.html")] {
        world.render(31, &["--format", format]).unwrap();
        let text = world.output(file);
        assert!(text.contains("p, built here: v1.2.0, v1.1.0, v1.0.0"), "{file}: {text}");
        assert!(!text.contains("p v1.1.0, built here") && text.contains("p v1.2.1, built here"), "{file}: {text}");
        world.render(31, &["--format", format, "--all"]).unwrap();
        assert!(world.output(file).contains("p v1.1.0, built here"), "{file}");
    }
    // For programs all of them are there; runs are listed of what is current, and of what is asked for.
    let matrix = world.matrix(31);
    let runs = |version: &str| {
        let of = matrix.cells.iter().find(|cell| cell.version == version && cell.kubernetes.is_some());
        of.unwrap().runs.len()
    };
    assert_eq!((runs("v1.0.0"), runs("v1.2.1")), (0, 1));
    let (_, why) = world.json(&["why", "p@v1.0.0/linux/amd64", "--as-of", "2026-01-31"]);
    assert_eq!(why[0]["runs"].as_array().unwrap().len(), 1);
}

/// The end of a log is shown for the newest run that has one: the pages of runs show the others.
#[test]
fn a_matrix_holds_the_logs_of_one_run_of_a_cell() {
    let world = World::new();
    let bad = || Test { log: Some("logs/x.log".into()), ..test("TestBad", Status::Failed, Some(Cause::Product)) };
    for day in 1..=3 {
        let run = world.run(day, "bad").good("p", "v1", vec![bad()]);
        world.record(&run.log("p", "linux/amd64", "x.log", format!("log of day {day}").as_bytes())).unwrap();
    }
    world.record(&world.run(4, "lost").lost("p", "v1", "linux/amd64")).unwrap();
    let matrix = world.matrix(5);
    let cell = matrix.cells.iter().find(|cell| cell.kubernetes.is_some()).unwrap();
    let tests = cell.runs.iter().flat_map(|run| &run.results).flat_map(|result| &result.tests);
    let tails: Vec<_> = tests.map(|test| test.log_tail.as_deref()).collect();
    assert_eq!(tails, [Some("log of day 3"), None, None]);
}

#[test]
fn what_is_written_again_is_only_what_changed() {
    let world = year();
    let first = write(&world, "2025-06-20");
    assert_eq!(first["written"], first["pages"]);
    let again = write(&world, "2025-06-20");
    assert_eq!((again["written"].as_u64(), again["removed"].as_u64()), (Some(0), Some(0)));
    let new = world.digest(&world.run_on("2025-06-21", "new").full("fresh", "v1", "linux/amd64", passing(3)));
    let more = write(&world, "2025-06-21");
    assert!(more["pages"].as_u64() > again["pages"].as_u64());
    assert!(more["written"].as_u64().unwrap() < first["written"].as_u64().unwrap(), "{more}");
    let page = |digest: &str| world.path("site/runs").join(format!("{}.html", &digest["sha256:".len()..][..16]));
    assert!(page(&new).is_file());
    // A run that is gone has no page any more; one that somebody removed comes back.
    fs::remove_dir_all(world.path("history").join(new.replace(':', "-"))).unwrap();
    fs::remove_file(world.path("site/index.html")).unwrap();
    write(&world, "2025-06-21");
    assert!(!page(&new).exists() && world.path("site/index.html").is_file());
}

/// Pages of cells are not made again when nothing that they are made from changed: what is there has to be what would be.
#[test]
fn a_site_that_grew_is_the_site_from_nothing() {
    let world = year();
    let site = world.path("site");
    let mut written = Vec::new();
    for date in ["2025-02-03", "2025-06-20", "2025-06-21", "2025-06-21", "2027-03-01"] {
        let run = world.run_on("2025-06-21", "new").full("fresh", "v1", "linux/amd64", passing(3));
        if written.len() == 2 {
            world.digest(&run);
        }
        written.push(write(&world, date)["written"].as_u64().unwrap());
        let grown = pages(&site);
        fs::rename(&site, world.path("grown")).unwrap();
        write(&world, date);
        assert_eq!(pages(&site), grown, "{date}");
        fs::remove_dir_all(&site).unwrap();
        fs::rename(world.path("grown"), &site).unwrap();
    }
    assert_eq!(written[3], 0, "{written:?}");
    let (cell, text) = pages(&site).into_iter().find(|(path, _)| path.parent().unwrap().ends_with("cells")).unwrap();
    fs::remove_file(&cell).unwrap();
    write(&world, "2027-03-01");
    assert_eq!(fs::read_to_string(&cell).unwrap(), text);
}

#[test]
fn somebody_s_folder_is_left_alone() {
    let world = year();
    fs::create_dir(world.path("thesis")).unwrap();
    fs::write(world.path("thesis/index.html"), "mine").unwrap();
    let out = world.path("thesis").display().to_string();
    assert_eq!(world.program(&["site", "--out", &out]).0, 2);
    assert_eq!(fs::read_to_string(world.path("thesis/index.html")).unwrap(), "mine");
}

#[test]
fn a_link_to_the_dashboard_is_an_address_and_nothing_else() {
    let world = World::new();
    let run = world.run(10, "a").full("p", "v1", "linux/amd64", passing(2));
    let call = |more: &[&str]| {
        let folder = run.dir.path().display().to_string();
        let [history, index] = ["history", "index"].map(|name| world.path(name).display().to_string());
        world.call(&[&["record", &folder, "--history", &history, "--index", &index], more].concat())
    };
    let record = |link: &str| call(&["--dashboard", link]);
    for bad in
        ["javascript:alert(1)", "https://", "https://a/\" onclick=\"x", "http://a b", "//a/b", "https://a/\u{202e}x"]
    {
        assert_eq!(record(bad).unwrap_err().cause, Cause::Usage, "{bad}");
    }
    let link = "https://dashboard.example/#/namespaces/ci/pipelineruns/nightly-7";
    // A Task knows where the Dashboard is, if there is one, and what its run is called.
    let of_run = |dashboard: &str, run: &str| call(&["--dashboard", dashboard, "--pipelinerun", run]);
    assert_eq!(of_run("https://dashboard.example", "nightly-7").unwrap_err().cause, kit::Cause::Usage);
    of_run("", "ci/nightly-7").unwrap();
    assert!(!run.dir.path().join("dashboard").exists());
    let digest = of_run("https://dashboard.example/", "ci/nightly-7").unwrap().digest.unwrap();
    assert_eq!(record(link).unwrap().digest.unwrap(), digest);
    write(&world, "2026-01-12");
    let page = format!("site/runs/{}.html", &digest["sha256:".len()..][..16]);
    let page = fs::read_to_string(world.path(&page)).unwrap();
    assert!(
        page.contains(&format!(
            "<a href=\"{}\" rel=\"noreferrer\">This run in the Tekton Dashboard</a>",
            link.replace('/', "&#x2f;")
        )),
        "{page}"
    );
}
