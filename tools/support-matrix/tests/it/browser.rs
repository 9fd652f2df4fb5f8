//! The site in a real browser: by keyboard alone, in the dark, on a phone, and by axe's rules for assistive technology.

use std::path::PathBuf;

use serde_json::Value;

use crate::{
    webdriver::{Browser, ENTER, axe},
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
    browser.press(ENTER);
    assert_eq!(
        browser.script("return document.querySelector('h1').textContent"),
        "climber v1.0.0 on linux/s390x, Kubernetes v1.37.2"
    );
    browser.tab_to("e.matches('a.deciding')");
    browser.press(ENTER);
    assert_eq!(browser.script("return location.hash"), "#cause");
    let seen = browser.script("const r = document.getElementById('cause').getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight");
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
    let mut pages = vec![folder.join("index.html"), folder.join("log.html"), folder.join("skips.html")];
    for part in ["cells", "owners", "runs"] {
        let mut found: Vec<_> =
            std::fs::read_dir(folder.join(part)).unwrap().map(|entry| entry.unwrap().path()).collect();
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
            let found = browser.script_later("const done = arguments[arguments.length - 1]; axe.run(document).then(r => done(r.violations.map(v => v.id + ': ' + v.nodes.slice(0, 3).map(n => n.html + ' ' + n.failureSummary).join(' | '))))");
            assert_eq!(found.as_array().map(Vec::len), Some(0), "{name}, {width} wide, dark {dark}: {found:#}");
            let wide = browser.script("return document.documentElement.scrollWidth - innerWidth");
            assert!(wide.as_i64().unwrap() <= 0, "{name} is {wide} pixels too wide for {width}");
            if ["index.html", "climber_v1.0.0_linux-s390x_v1.37.2_built-here.html", "log.html"].contains(&&*name) {
                browser.picture(&format!("{}-{width}.png", name.trim_end_matches(".html")));
            }
        }
        is_quiet(&browser);
    }
}

#[test]
#[ignore = "needs Chromium: cargo xtask test --browser runs it"]
fn browser_opens_a_matrix_of_80_cells_and_three_years_in_a_second() {
    let world = World::new();
    let platforms = ["amd64", "arm64", "s390x", "ppc64le", "arm", "riscv64", "loong64", "386"];
    for year in 2023..=2025 {
        for component in 0..10 {
            for platform in platforms {
                let run = world.run_on(&format!("{year}-11-{:02}", component + 1), &format!("c{component}-{platform}"));
                let run =
                    run.full(&format!("component-{component}"), "v1.0.0", &format!("linux/{platform}"), passing(20));
                world.record(&run).unwrap();
            }
        }
    }
    let folder = site(&world, "2025-11-12");
    let browser = Browser::start();
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            browser.open(&folder.join("index.html"));
            let script = "const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd - n.startTime";
            browser.script(script).as_f64().unwrap()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    assert_eq!(browser.script("return document.querySelectorAll('a.cell').length"), 80);
    browser.picture("large.png");
    println!("opened in {:.0} ms (median of 5)", times[2]);
    assert!(times[2] <= 1_000.0, "{times:?}");
    is_quiet(&browser);
}
