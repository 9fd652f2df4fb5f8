//! The site in a real browser: by keyboard alone, in the dark, on a phone, and by axe's rules for assistive technology.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kit::{RunDir, bundle};
use serde_json::Value;

use crate::{
    golden::everything,
    webdriver::{Browser, axe},
    world::{World, passing},
    year::year,
};

fn site(world: &World, date: &str) -> PathBuf {
    let out = world.path("site");
    let (code, json) = world.json(&["site", "--out", &out.display().to_string(), "--as-of", date]);
    assert_eq!(code, 0, "{json}");
    out
}

/// No error in the console, and no request but for the pages' own files.
fn is_quiet(browser: &Browser) {
    let (said, asked) = browser.said_and_asked();
    assert!(said.is_empty(), "the console says {said:?}");
    assert!(!asked.is_empty());
    for address in asked {
        assert!(address.starts_with("file://") || address.starts_with("data:"), "a request to {address}");
    }
}

#[test]
#[ignore = "needs Chromium: cargo xtask test --browser runs it"]
fn browser_follows_a_red_cell_to_the_line_of_its_cause_by_keyboard_alone() {
    let world = year();
    let folder = site(&world, "2025-03-02");
    let browser = Browser::start();
    browser.open(&folder.join("index.html"));
    // The first stop of the tabulator skips the pages' list.
    browser.tab_to("e.className === 'skip'");
    browser.tab_to("e.matches('a.cell') && e.querySelector('.failing')");
    browser
        .follow("return document.querySelector('h1').textContent", "climber v1.0.0 on linux/s390x, Kubernetes v1.37.2");
    browser.tab_to("e.matches('a.deciding')");
    browser.follow("return location.hash.replace(/[0-9]+$/, '') + document.readyState", "#cause-complete");
    let seen = browser.script("const r = document.getElementById(location.hash.slice(1)).getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight");
    assert_eq!(seen, Value::Bool(true), "the cause is on the screen");
    // From there the line itself and the log are the next stops.
    assert_eq!(browser.tab_to("e.matches('pre.line')"), 1);
    assert_eq!(
        browser.script("return document.activeElement.textContent"),
        "endian_test.go:42: got 0x0100, want 0x0001"
    );
    assert_eq!(browser.tab_to("e.matches('pre') && e.querySelector('mark')"), 1);
    assert!(
        browser.script("return document.querySelector('mark').textContent").as_str().unwrap().contains("want 0x0001")
    );
    browser.picture("run.png");
    is_quiet(&browser);
}

#[test]
#[ignore = "needs Chromium: cargo xtask test --browser runs it"]
fn browser_finds_every_page_accessible_in_light_and_dark_on_desk_and_phone() {
    let world = year();
    let folder = site(&world, "2025-06-20");
    let mut pages: Vec<_> =
        ["index.html", "older.html", "log.html", "skips.html"].iter().map(|name| folder.join(name)).collect();
    // The matrix as one file, with whatever else can be in it: its open regions have to have different names.
    let everything = everything();
    everything.render(12, &["--format", "html"]).unwrap();
    pages.push(everything.path("out/matrix.html"));
    for part in ["cells", "owners", "runs"] {
        let mut found: Vec<_> = fs::read_dir(folder.join(part)).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        pages.extend(found.into_iter().take(if part == "runs" { 6 } else { 40 }));
    }
    let (axe, browser) = (axe(), Browser::start());
    for (width, height, dark) in [(1280, 900, false), (390, 844, true)] {
        browser.screen(width, height, dark);
        for page in &pages {
            browser.open(page);
            let name = page.file_name().unwrap().to_string_lossy();
            browser.script(&format!("{axe}\n;window.axe = axe;"));
            let found = browser.script_later("const done = arguments[arguments.length - 1]; axe.run(document).then(r => done({ passed: r.passes.map(p => p.id), violations: r.violations.map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html + ' ' + n.failureSummary).join(' | ')) }))");
            let (passed, violations) = (&found["passed"], found["violations"].as_array().unwrap());
            assert!(violations.is_empty(), "{name}, {width} wide, dark {dark}: {violations:#?}");
            // That it looked at all.
            for rule in ["color-contrast", "region", "landmark-unique", "heading-order", "page-has-heading-one"] {
                assert!(passed.as_array().unwrap().iter().any(|id| id == rule), "{name}: {rule} of {passed}");
            }
            // A phone makes room for what is too wide: the window is no measure.
            let wide = browser.script("return document.documentElement.scrollWidth").as_i64().unwrap();
            assert!(wide <= i64::from(width), "{name} is {wide} pixels wide on a screen of {width}");
            if ["index.html", "climber_v1.0.0_linux-s390x_v1.37.2_built-here.html", "log.html"].contains(&&*name) {
                browser.picture(&format!("{}-{width}.png", name.trim_end_matches(".html")));
            }
        }
        is_quiet(&browser);
    }
}

/// Puts a run into the history that is like another, but for names: a thousand are made in a moment.
fn like(world: &World, template: &Path, names: &[(&str, String)]) {
    let renamed = |text: &str| names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let making = world.path("history/.making");
    let mut left = vec![template.to_path_buf()];
    while let Some(folder) = left.pop() {
        let there = making.join(renamed(folder.strip_prefix(template).unwrap().to_str().unwrap()));
        fs::create_dir_all(&there).unwrap();
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                left.push(entry.path());
            } else {
                let text = renamed(&fs::read_to_string(entry.path()).unwrap());
                fs::write(there.join(entry.file_name()), text).unwrap();
            }
        }
    }
    let closed = bundle::seal(&RunDir::open(&making).unwrap()).unwrap();
    fs::rename(&making, world.path("history").join(closed.digest().replace(':', "-"))).unwrap();
}

#[test]
#[ignore = "needs Chromium: cargo xtask test --browser runs it"]
fn browser_opens_a_matrix_of_80_cells_and_three_years_in_a_second() {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    world.config("policy.toml", &format!("{policy}\n[states]\nunknown = 90\n"));
    let platforms = ["amd64", "arm64", "s390x", "ppc64le", "arm", "riscv64", "loong64", "386"];
    let [component, version, on, date] = ["component-x", "v1.999.0", "linux/mips64le", "2022-01-01"];
    let template = world.run_on(date, "like").full(component, version, on, passing(20));
    // A release every month, each tested on three platforms, and the newest everywhere: 1,130 runs.
    let months: Vec<_> = (2023..=2025).flat_map(|year| (1..=12).map(move |month| (year, month))).collect();
    for (number, (year, month)) in months.iter().enumerate() {
        let tested = if number + 1 == months.len() { platforms.len() } else { 3 };
        for (of, offset) in (0..10).flat_map(|of| (0..tested).map(move |offset| (of, offset))) {
            let platform = platforms[(number + of + offset) % platforms.len()];
            let day = format!("{year}-{month:02}-{:02}", of + 1);
            let names = [
                (component, format!("component-{of}")),
                (version, format!("v1.{number}.0")),
                (on, format!("linux/{platform}")),
                ("linux-mips64le", format!("linux-{platform}")),
                (date, day.clone()),
                ("20220101-010000-like", format!("{}-010000-{of}-{platform}", day.replace('-', ""))),
            ];
            like(&world, template.dir.path(), &names);
        }
    }
    let folder = site(&world, "2025-12-12");
    let browser = Browser::start();
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            browser.open(&folder.join("index.html"));
            let script = "const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd - n.startTime";
            browser.script(script).as_f64().unwrap()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    // Of three years those are on the first page that somebody can still rest on something of.
    let cells = browser.script("return document.querySelectorAll('a.cell').length").as_u64().unwrap();
    assert!((80..400).contains(&cells), "{cells} cells");
    browser.picture("large.png");
    println!("opened in {:.0} ms (median of 5)", times[2]);
    assert!(times[2] <= 1_000.0, "{times:?}");
    is_quiet(&browser);
}
