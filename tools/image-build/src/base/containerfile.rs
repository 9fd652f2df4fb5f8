//! A Dockerfile, as far as it has to be understood before it is built: what it starts from, and whether it
//! runs programs of the platform that it is for.

use std::collections::BTreeMap;

use kit::Platform;

/// What a Dockerfile needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Containerfile {
    /// Images that stages for the target platform start from; those whose names only a build knows are left out.
    pub(crate) bases: Vec<String>,
    /// The first `RUN` of a stage for the target platform, with its line.
    pub(crate) run: Option<(usize, String)>,
}

/// An instruction: its line, its name in upper case, the rest with continued lines put together.
type Instruction = (usize, String, String);

impl Containerfile {
    /// Reads it; `arguments` are the values of `ARG`s that the caller gives.
    pub(crate) fn parse(text: &str, arguments: &BTreeMap<String, String>, host: &Platform) -> Self {
        let mut found = Self::default();
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        // Names of stages, and whether they are for the target.
        let mut stages: BTreeMap<String, bool> = BTreeMap::new();
        let (mut stage, mut count) = (None, 0);
        for (line, name, rest) in instructions(text) {
            match name.as_str() {
                // Only those before the first stage count for FROM.
                "ARG" if stage.is_none() => {
                    for word in rest.split_whitespace() {
                        let (name, default) = word.split_once('=').unwrap_or((word, ""));
                        let value = arguments.get(name).map_or_else(|| unquote(default), Clone::clone);
                        known.insert(name.to_owned(), value);
                    }
                }
                "FROM" => {
                    let words: Vec<_> = rest.split_whitespace().collect();
                    let option = words.iter().find_map(|word| word.strip_prefix("--platform="));
                    // The default, said.
                    let option = option.filter(|option| !["$TARGETPLATFORM", "${TARGETPLATFORM}"].contains(option));
                    let words: Vec<_> = words.iter().filter(|word| !word.starts_with("--")).collect();
                    let image = substitute(words.first().copied().unwrap_or(&""), &known);
                    let native = option.is_some_and(|option| is_host(option, host));
                    let earlier = image.as_ref().and_then(|image| stages.get(&image.to_ascii_lowercase()).copied());
                    let target = earlier.unwrap_or(!native);
                    if let (None, true, Some(image)) = (earlier, target && option.is_none(), image)
                        && image != "scratch"
                        && !image.is_empty()
                        && !found.bases.contains(&image)
                    {
                        found.bases.push(image);
                    }
                    stages.insert(count.to_string(), target);
                    if let [_, keyword, name, ..] = words[..]
                        && keyword.eq_ignore_ascii_case("as")
                    {
                        stages.insert(name.to_ascii_lowercase(), target);
                    }
                    (stage, count) = (Some(target), count + 1);
                }
                "RUN" if stage == Some(true) && found.run.is_none() => {
                    found.run = Some((line, format!("RUN {rest}").chars().take(120).collect()));
                }
                _ => {}
            }
        }
        found
    }
}

/// Whether a `--platform` of FROM is the machine that builds.
fn is_host(option: &str, host: &Platform) -> bool {
    ["$BUILDPLATFORM", "${BUILDPLATFORM}"].contains(&option)
        || option.parse::<Platform>().is_ok_and(|platform| platform == *host)
}

fn instructions(text: &str) -> Vec<Instruction> {
    let mut found: Vec<Instruction> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let mut whole = line.trim().to_owned();
        if whole.is_empty() || whole.starts_with('#') {
            continue;
        }
        while let Some(begun) = whole.strip_suffix('\\') {
            // Comments and empty lines between continued lines do not end them.
            let next = lines.find(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'));
            let next = next.map_or("", |(_, line)| line.trim());
            whole = format!("{begun}{next}");
        }
        let (name, rest) = whole.split_once(char::is_whitespace).unwrap_or((&whole, ""));
        let name = name.to_ascii_uppercase();
        if ["RUN", "COPY", "ADD"].contains(&name.as_str()) {
            for end in heredocs(rest) {
                lines.find(|(_, line)| line.trim() == end);
            }
        }
        found.push((number + 1, name, rest.trim().to_owned()));
    }
    found
}

/// The words that end the texts which begin after a line (`<<WORD`, `<<-WORD`, `<<"WORD"`).
fn heredocs(rest: &str) -> Vec<String> {
    let words = rest.split_whitespace().filter_map(|word| word.strip_prefix("<<"));
    let words = words.map(|word| unquote(word.strip_prefix('-').unwrap_or(word)));
    let is_word = |word: &String| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    words.filter(is_word).collect()
}

fn unquote(text: &str) -> String {
    text.trim_matches(['"', '\'']).to_owned()
}

/// Puts known variables in; nothing if another one is needed.
fn substitute(text: &str, known: &BTreeMap<String, String>) -> Option<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let (name, tail) = match after.strip_prefix('{') {
            Some(after) => after.split_once('}')?,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        result.push_str(known.get(name)?);
        rest = tail;
    }
    result.push_str(rest);
    Some(result)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Containerfile {
        let arguments = [("TAG".to_owned(), "v2".to_owned())].into();
        Containerfile::parse(text, &arguments, &"linux/amd64".parse().unwrap())
    }

    #[test]
    fn what_runs_on_the_target_is_told_from_what_runs_here() {
        let text = "# syntax=x\nARG TAG=v1\nARG NAME=\"r.io/base\"\nFROM --platform=$BUILDPLATFORM golang:1 AS build\n\
                    RUN go build\nFROM build as again\nRUN make\nFROM ${NAME}:$TAG\nCOPY --from=build /x /x\n";
        assert_eq!(parse(text), Containerfile { bases: vec!["r.io/base:v2".into()], run: None });
        let foreign = format!("{text}run apk add \\\n  # why\n\n  git\n");
        assert_eq!(parse(&foreign).run, Some((10, "RUN apk add git".into())));
        let text = "FROM --platform=linux/amd64 a\nRUN x\nFROM 0\nRUN y\nFROM scratch\nFROM $TARGETBASE\nFROM b\n";
        assert_eq!(parse(text), Containerfile { bases: vec!["b".into()], run: None });
        assert_eq!(parse("FROM --platform=linux/s390x a\nRUN x\n").run, Some((2, "RUN x".into())));
        let text = "FROM --platform=$TARGETPLATFORM a\nFROM --platform=${TARGETPLATFORM} b AS c\nRUN x\n";
        let (bases, run) = (vec!["a".into(), "b".into()], Some((3, "RUN x".into())));
        assert_eq!(parse(text), Containerfile { bases, run });
        assert_eq!(parse("FROM a AS x\nFROM X\nRUN y").run, Some((3, "RUN y".into())));
    }

    #[test]
    fn the_text_of_a_file_is_no_instruction() {
        let text = "FROM a\nCOPY <<EOF <<-'B' /x/\nRUN rm\nEOF\nRUN rm\nB\nENV a=b \\\n RUN=c\n";
        assert_eq!(parse(text).run, None);
        assert!(parse(&format!("{text}RUN <<EOF\nx\nEOF\n")).run.is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(FROM|RUN|ARG|COPY|[ -~]|\n|\\\\|\\$\\{|é){0,60}") {
            parse(&text);
        }
    }
}
