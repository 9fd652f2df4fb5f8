//! Properties of the page that no golden file would keep: nothing from elsewhere, nothing unescaped, well formed.

use crate::golden::everything;

/// A tag as the page has it.
struct Tag<'a> {
    name: &'a str,
    rest: &'a str,
}

fn page() -> String {
    let world = everything();
    world.render(12, &["--format", "html"]).unwrap();
    let page = world.output("matrix.html");
    // For whoever wants to look at it: target/tmp/matrix.html.
    let copy = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("matrix.html");
    kit::rundir::write(&copy, page.as_bytes()).unwrap();
    page
}

/// All tags, in order. The page writes `<` only where a tag begins: everything else is escaped.
fn tags(page: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag has an end");
        let inside = &rest[start + 1..end];
        assert!(!inside.contains('<'), "'<' inside of <{inside}>");
        let (name, attributes) = inside.split_once(|c: char| c.is_whitespace()).unwrap_or((inside, ""));
        tags.push(Tag { name, rest: attributes });
        rest = &rest[end + 1..];
    }
    tags
}

#[test]
fn it_needs_nothing_from_elsewhere() {
    let page = page();
    for tag in tags(&page) {
        assert!(!["script", "img", "link", "iframe", "object", "base"].contains(&tag.name), "<{}>", tag.name);
        for attribute in ["src=", "onerror=", "onload=", "onclick=", "srcset="] {
            assert!(!tag.rest.contains(attribute), "<{} {}>", tag.name, tag.rest);
        }
        if let Some((_, link)) = tag.rest.split_once("href=\"") {
            assert!(link.starts_with('#'), "{link}");
        }
    }
    assert!(
        !page.contains("url(") && !page.contains("@import") && !page.contains("http://") && !page.contains("https://")
    );
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn hostile_names_are_text() {
    let page = page();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;"), "the name is there, escaped");
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(
        !page.chars().any(|c| c != '\n' && kit::ui::is_hostile(c)),
        "no control character and no mark of direction"
    );
    assert!(page.contains("got &lt;nothing&gt; &amp; more"), "the log's end is there, escaped");
}

#[test]
fn tags_are_closed_in_order_and_links_lead_somewhere() {
    let page = page();
    let mut open = Vec::new();
    let (mut ids, mut links) = (Vec::new(), Vec::new());
    for tag in tags(&page) {
        let attribute = |name: &str| Some(tag.rest.split_once(&format!("{name}=\""))?.1.split_once('"')?.0.to_owned());
        ids.extend(attribute("id").filter(|_| tag.name != "meta"));
        links.extend(attribute("href").map(|link| link.trim_start_matches('#').to_owned()));
        match tag.name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "before </{name}>, open: {open:?}"),
            None if ["!doctype", "meta", "br"].contains(&tag.name) => {}
            None => open.push(tag.name.to_owned()),
        }
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(links.iter().all(|link| ids.contains(link)), "{links:?} {ids:?}");
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all, "each id once");
}

#[test]
fn it_can_be_read_aloud() {
    let page = page();
    let count = |text: &str| page.matches(text).count();
    assert_eq!(count("<table"), count("<caption>"));
    assert!(count("scope=\"col\"") > 0 && count("scope=\"row\"") > 0);
    assert_eq!(count("<th "), count("scope=\""), "every head says of what");
    for needed in ["lang=\"en\"", "name=\"viewport\"", "prefers-color-scheme: dark", "<main", "<h1>", "class=\"skip\""]
    {
        assert!(page.contains(needed), "{needed}");
    }
}
