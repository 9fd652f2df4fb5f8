//! Why a connection failed, from ssh's own log. The host cannot write into that: what its command prints goes elsewhere.

use kit::Cause;

/// What ssh's exit code 255 was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The host proved another key than those that are pinned: the fingerprint that it showed, if ssh saw one.
    HostKey(Option<String>),
    /// It does not let us in.
    Refused(String),
    /// There is no connection, or it broke; that may pass.
    Connection(String),
    /// Nothing of ssh's: the command itself ended so.
    Command,
}

/// Which host it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Host,
    Jump,
}

impl Fault {
    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::Refused(_) => Cause::Auth,
            Self::HostKey(_) | Self::Connection(_) | Self::Command => Cause::Ssh,
        }
    }

    /// Whether it is worth to try again.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self, Self::Connection(_))
    }
}

/// Whether the command was handed over: then it may be at work there.
pub(super) fn began(log: &str) -> bool {
    log.lines().any(|line| line.starts_with("debug1: Sending command"))
}

/// Judges by the log of the connection to the host, and of that to the jump host if there is one.
pub(super) fn judge(log: &str, jump: Option<&str>) -> (At, Fault) {
    if let Some(jump) = jump {
        if !jump.lines().any(|line| line.starts_with("Authenticated to ")) {
            return (At::Jump, of_one(jump));
        }
        if let Some(line) = said(jump).find(|line| line.contains("open failed:")) {
            return (At::Host, Fault::Connection(line.to_owned()));
        }
    }
    (At::Host, of_one(log))
}

fn of_one(log: &str) -> Fault {
    if log.lines().any(|line| line == "debug1: Exit status 255") {
        return Fault::Command;
    }
    let host_key = ["Host key verification failed", "no matching host key type", "IDENTIFICATION HAS CHANGED"];
    if said(log).any(|line| host_key.iter().any(|words| line.contains(words))) {
        let shown = log.lines().find_map(|line| line.strip_prefix("debug1: Server host key: "));
        return Fault::HostKey(shown.map(|shown| shown.chars().take(120).collect()));
    }
    let refused = ["Permission denied (", "Too many authentication failures"];
    if let Some(line) = said(log).find(|line| refused.iter().any(|words| line.contains(words))) {
        // Why a key was not even tried says more.
        let key = said(log).find(|line| line.starts_with("Load key ") || line.starts_with("no such identity"));
        return Fault::Refused([key, Some(line)].into_iter().flatten().collect::<Vec<_>>().join("\n"));
    }
    let last = said(log).filter(|line| !line.starts_with("Connection to ")).last();
    Fault::Connection(last.unwrap_or("ssh does not say why").to_owned())
}

/// The lines that are for people.
fn said(log: &str) -> impl Iterator<Item = &str> {
    let noise = ["debug1:", "Authenticated to ", "Transferred:", "Bytes per second:", "Killed by signal"];
    let lines = log.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.trim().is_empty());
    lines.filter(move |line| !noise.iter().any(|noise| line.starts_with(noise)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "debug1: Server host key: ssh-ed25519 SHA256:Ucz177\n";
    const IN: &str = "debug1: Exit status 0\nAuthenticated to 127.0.0.1 (via proxy) using \"publickey\".\n";

    /// As OpenSSH 9.2 writes them.
    #[test]
    fn each_fault_as_ssh_says_it() {
        let shown = || Fault::HostKey(Some("ssh-ed25519 SHA256:Ucz177".into()));
        let connection = |line: &str| Fault::Connection(line.into());
        for (log, fault) in [
            (
                format!(
                    "{KEY}@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.\r\n"
                ),
                shown(),
            ),
            (
                format!(
                    "{KEY}No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.\n"
                ),
                shown(),
            ),
            (
                "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. Their offer: ssh-dss"
                    .into(),
                Fault::HostKey(None),
            ),
            (
                format!("{KEY}root@h: Permission denied (publickey).\n"),
                Fault::Refused("root@h: Permission denied (publickey).".into()),
            ),
            (
                "Load key \"/k\": error in libcrypto\r\nroot@h: Permission denied (publickey).\r\n".into(),
                Fault::Refused("Load key \"/k\": error in libcrypto\nroot@h: Permission denied (publickey).".into()),
            ),
            (
                "ssh: connect to host h port 22: Connection refused\r\n".into(),
                connection("ssh: connect to host h port 22: Connection refused"),
            ),
            (
                "ssh: Could not resolve hostname z: Name or service not known\n".into(),
                connection("ssh: Could not resolve hostname z: Name or service not known"),
            ),
            (
                "Connection timed out during banner exchange\nConnection to h port 22 timed out\n".into(),
                connection("Connection timed out during banner exchange"),
            ),
            (
                format!(
                    "{KEY}Authenticated to h ([h]:22) using \"publickey\".\ndebug1: Sending command: x\nTimeout, server h not responding.\n"
                ),
                connection("Timeout, server h not responding."),
            ),
            (format!("{KEY}debug1: Sending command: x\ndebug1: Exit status 255\n"), Fault::Command),
            (String::new(), connection("ssh does not say why")),
        ] {
            assert_eq!(judge(&log, None), (At::Host, fault), "{log}");
        }
        assert_eq!(Fault::Refused(String::new()).cause(), Cause::Auth);
        assert!(connection("").may_pass() && !shown().may_pass() && !Fault::Command.may_pass());
        assert!(began("debug1: Sending command: x\n") && !began("debug1: nothing\n"));
    }

    #[test]
    fn the_jump_host_has_faults_of_its_own() {
        let closed =
            "kex_exchange_identification: Connection closed by remote host\nConnection closed by UNKNOWN port 65535\n";
        let jump = format!("{KEY}Host key verification failed.\n");
        assert_eq!(judge(closed, Some(&jump)), (At::Jump, Fault::HostKey(Some("ssh-ed25519 SHA256:Ucz177".into()))));
        let (at, fault) = judge(closed, Some("ssh: connect to host j port 22: No route to host\n"));
        assert!(at == At::Jump && fault.may_pass());
        let behind =
            format!("{IN}channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed\n");
        let (at, fault) = judge(closed, Some(&behind));
        assert_eq!(
            (at, fault),
            (At::Host, Fault::Connection("channel 0: open failed: connect failed: Connection refused".into()))
        );
        let (at, fault) = judge("u@h: Permission denied (publickey).\n", Some(&format!("{IN}Killed by signal 1.\n")));
        assert!(at == At::Host && fault.cause() == Cause::Auth);
    }
}
