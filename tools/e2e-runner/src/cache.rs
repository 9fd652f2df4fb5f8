//! Compiled test programs in the cache: what nobody used for two weeks goes.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

/// Its time is when a program beside it was used last.
const USED: &str = ".used";
/// How long a program stays that nobody uses.
const KEPT: Duration = Duration::from_hours(14 * 24);

/// Says beside a program that somebody uses it. The program itself must not be touched while it runs.
pub(crate) fn used(path: &Path) {
    let touch =
        || -> std::io::Result<()> { fs::File::create(path.with_file_name(USED))?.set_modified(SystemTime::now()) };
    // Who may not write there has not compiled it either, and it goes two weeks after that.
    let _ = touch();
}

/// Programs of sources that have changed are large and of no use: those folders go, of the ones that are `meant`, whose
/// program nobody used for long. That of `path` stays, as do those that hold no program of that name.
pub(crate) fn forget_older(cache: &Path, path: &Path, meant: impl Fn(&str) -> bool) {
    let Some(program) = path.file_name() else { return };
    let others = fs::read_dir(cache).into_iter().flatten().flatten().map(|entry| entry.path());
    for other in others.filter(|other| Some(other.as_path()) != path.parent()) {
        let ours = other.file_name().and_then(|file| file.to_str()).is_some_and(&meant);
        let files = [other.join(USED), other.join(program)];
        let times = files.iter().filter_map(|file| fs::metadata(file).ok()?.modified().ok());
        let age = times.max().and_then(|last| last.elapsed().ok());
        if ours && age.is_some_and(|age| age > KEPT) {
            // What cannot be removed is tried again next time.
            let _ = fs::remove_dir_all(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_in_use_stays_however_old_it_is() {
        let cache = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = cache.path().join(name).join("x.test");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let month = SystemTime::now() - Duration::from_hours(30 * 24);
            fs::File::create(&path).unwrap().set_modified(month).unwrap();
            path
        };
        let (old, in_use, other) = (make("own-0"), make("own-1"), make("other-2"));
        used(&in_use);
        let new = make("own-3");
        forget_older(cache.path(), &new, |name| name.starts_with("own-"));
        let there = [&old, &in_use, &other, &new].map(|path| path.is_file());
        assert_eq!(there, [false, true, true, true]);
    }
}
