//! What BIRD says of its sessions.

use super::socket::Line;
use std::collections::BTreeMap;

/// A protocol begins.
const PROTOCOL: u16 = 1002;
/// More of it.
const DETAILS: u16 = 1006;

/// A session as BIRD has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStatus {
    /// BGP's state: `Idle`, `Connect`, `Active`, `OpenSent`, `OpenConfirm`, `Established`; before that, BIRD's own.
    pub state: String,
    /// When the session came into this state, as ISO 8601 has it.
    pub since: String,
    /// What went wrong last, in a session that is not established.
    pub error: String,
    /// Routes that were taken.
    pub imported: u64,
    /// Routes that were given.
    pub exported: u64,
}

impl SessionStatus {
    /// Routes pass.
    pub fn is_established(&self) -> bool {
        self.state == "Established"
    }
}

/// The sessions by BIRD's names, from the answer to `show protocols all`.
pub(super) fn sessions(answer: &[Line]) -> BTreeMap<String, SessionStatus> {
    let mut sessions = BTreeMap::new();
    let mut current: Option<String> = None;
    for Line { code, text } in answer {
        let text = text.trim_end();
        if *code == PROTOCOL && !text.starts_with(' ') {
            let mut words = text.split_whitespace();
            current = match (words.next(), words.next()) {
                (Some(name), Some("BGP")) => Some(name.to_owned()),
                _ => None,
            };
            if let Some(name) = &current {
                let (state, since) = (words.nth(1).unwrap_or_default(), words.next().unwrap_or_default());
                let status = SessionStatus { state: state.into(), since: since.into(), ..Default::default() };
                sessions.insert(name.clone(), status);
            }
        }
        let Some(status) =
            current.as_ref().filter(|_| *code == DETAILS).and_then(|name| sessions.get_mut(name))
        else {
            continue;
        };
        let Some((field, value)) = text.split_once(':').map(|(field, value)| (field.trim(), value.trim()))
        else {
            continue;
        };
        match field {
            "BGP state" => status.state = value.to_owned(),
            "Last error" => status.error = value.to_owned(),
            "Routes" => {
                let count = |what: &str| {
                    let counted = value.split(',').find_map(|part| part.trim().strip_suffix(what));
                    counted.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0)
                };
                status.imported += count("imported");
                status.exported += count("exported");
            }
            _ => {}
        }
    }
    for status in sessions.values_mut().filter(|status| status.is_established()) {
        status.error.clear();
    }
    sessions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_told_from_other_protocols() {
        let said = [
            (2002, "Name       Proto      Table      State  Since         Info"),
            (1002, "own4       Static     master4    up     2026-01-02T03:04:05+0000  "),
            (1006, "  Channel ipv4"),
            (1006, "    Routes:         7 imported, 0 exported, 7 preferred"),
            (
                1002,
                "peer_10_0_0_2_port_179 BGP        ---        up     2026-01-02T03:04:06+0000  Established   ",
            ),
            (1006, "  BGP state:          Established"),
            (1006, "    Last error:       Socket: Connection refused"),
            (1006, "  Channel ipv4"),
            (1006, "    Routes:         3 imported, 2 exported, 1 preferred"),
            (1006, "    Route change stats:     received   rejected   filtered    ignored   accepted"),
            (
                1002,
                "peer_10_0_0_3_port_179 BGP        ---        start  2026-01-02T03:04:07+0000  Active  Socket: x",
            ),
            (1006, "  BGP state:          Active"),
            (1006, "    Last error:       Socket: No route to host"),
            (1002, "odd"),
            (1006, "  BGP state:          Nobody's"),
            (0, ""),
        ];
        let lines: Vec<_> = said.map(|(code, text)| Line { code, text: text.to_owned() }).into();
        let sessions = sessions(&lines);
        let of = |state: &str, second: u8, error: &str, imported, exported| SessionStatus {
            state: state.into(),
            since: format!("2026-01-02T03:04:0{second}+0000"),
            error: error.into(),
            imported,
            exported,
        };
        let wanted = [
            ("peer_10_0_0_2_port_179".to_owned(), of("Established", 6, "", 3, 2)),
            ("peer_10_0_0_3_port_179".to_owned(), of("Active", 7, "Socket: No route to host", 0, 0)),
        ];
        assert_eq!(sessions, wanted.into());
    }
}
