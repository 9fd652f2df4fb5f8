//! A program that a test ran to its end, and what it said.

use std::process::Command;

use kit::{Process, Stream};

/// How it ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs it.
pub(crate) fn run(command: Command) -> Ended {
    let (mut out, mut err) = (String::new(), String::new());
    let ended = Process::new("image-build", command).on_line(|stream, line| {
        let text = if stream == Stream::Out { &mut out } else { &mut err };
        text.push_str(line);
        text.push('\n');
    });
    let code = ended.finish().unwrap().code();
    Ended { code, out, err }
}
