//! Whom an image runs as, as far as it says.

use std::str::FromStr;

/// The file that knows names, relative to the root.
pub(crate) const PASSWD: &str = "etc/passwd";
/// More of it is not read.
pub(crate) const PASSWD_LIMIT: usize = 256 << 10;

/// What is known of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    /// Nothing if it cannot be told.
    pub(crate) nonroot: Option<bool>,
}

/// The user of a config (`user`, `uid`, either with `:group` or `:gid`; OCI image-spec, config.md) on an operating
/// system, with the image's own `/etc/passwd` if that was read.
pub(crate) fn who(os: &str, user: &str, passwd: Option<&[u8]>) -> Who {
    if os == "windows" {
        // Without a user it is the base's, ContainerUser for one and ContainerAdministrator for another.
        let nonroot = (!user.is_empty()).then(|| !user.eq_ignore_ascii_case("ContainerAdministrator"));
        return Who { nonroot, ..Who::default() };
    }
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let name = if name.is_empty() { "root" } else { name };
    let line = passwd.and_then(|passwd| find(passwd, name));
    let uid = number(name).or(line.map(|(uid, _)| uid)).or((name == "root").then_some(0));
    let gid = match group {
        Some(group) => number(group).or((group == "root").then_some(0)),
        // Who is not in the file gets group 0; without the file it cannot be told who is in it.
        None => line.map(|(_, gid)| gid).or((passwd.is_some() || uid == Some(0)).then_some(0)),
    };
    Who { uid, gid, nonroot: uid.map(|uid| uid != 0) }
}

/// Number and group of a user by name or number.
fn find(passwd: &[u8], name: &str) -> Option<(u32, u32)> {
    String::from_utf8_lossy(passwd).lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let (uid, gid) = (number(fields.get(2)?)?, number(fields.get(3)?)?);
        (fields[0] == name || number(name) == Some(uid)).then_some((uid, gid))
    })
}

fn number(text: &str) -> Option<u32> {
    u32::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nbroken\ngit:x:1000:1001::/home/git:\ntoor:x:0:5::/:\n";

    #[test]
    fn numbers_are_known_and_names_where_the_file_was_read() {
        for (user, passwd, wanted) in [
            ("", None, (Some(0), Some(0), Some(false))),
            ("", Some(FILE), (Some(0), Some(0), Some(false))),
            ("0:65532", None, (Some(0), Some(65532), Some(false))),
            ("000", None, (Some(0), Some(0), Some(false))),
            ("root", None, (Some(0), Some(0), Some(false))),
            (":5", None, (Some(0), Some(5), Some(false))),
            ("65532:65532", None, (Some(65532), Some(65532), Some(true))),
            ("65532", None, (Some(65532), None, Some(true))),
            ("65532", Some(FILE), (Some(65532), Some(0), Some(true))),
            ("git", None, (None, None, None)),
            ("git", Some(FILE), (Some(1000), Some(1001), Some(true))),
            ("1000", Some(FILE), (Some(1000), Some(1001), Some(true))),
            ("git:root", Some(FILE), (Some(1000), Some(0), Some(true))),
            ("toor", Some(FILE), (Some(0), Some(5), Some(false))),
            ("nobody:x", Some(FILE), (None, None, None)),
            ("99999999999", None, (None, None, None)),
        ] {
            let Who { uid, gid, nonroot } = who("linux", user, passwd);
            assert_eq!((uid, gid, nonroot), wanted, "{user} {}", passwd.is_some());
        }
    }

    #[test]
    fn windows_has_names_only() {
        for (user, wanted) in [("", None), ("ContainerUser", Some(true)), ("containeradministrator", Some(false))] {
            assert_eq!(who("windows", user, None), Who { nonroot: wanted, ..Who::default() });
        }
    }

    proptest! {
        #[test]
        fn any_file_and_any_user_are_survived(file in proptest::collection::vec(any::<u8>(), 0..300), user in ".{0,20}") {
            let found = who("linux", &user, Some(&file));
            prop_assert_eq!(found.nonroot, found.uid.map(|uid| uid != 0));
        }
    }
}
