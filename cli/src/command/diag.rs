//! `diag collect`: one archive of what both processes say of themselves.
//!
//! Each file is what a command of this program prints, run as its user would run it: nothing is in the archive that the
//! user could not see otherwise.

use std::{
    env,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    args::{DiagCollect, Global},
    exit::{Code, Failure, Outcome},
    output::Output,
    readable::utc,
};

/// Files of the archive, and the command that each is from.
const FILES: [(&str, &str); 28] = [
    ("version.txt", "version"),
    ("status.json", "status -o json"),
    ("node-check.txt", "node check"),
    ("dataplane/runtime.json", "dp runtime -o json"),
    ("dataplane/hist-cycles.json", "dp hist cycles -o json"),
    ("dataplane/hist-vector.json", "dp hist vector -o json"),
    ("dataplane/hist-latency.json", "dp hist latency -o json"),
    ("dataplane/interfaces.json", "dp interfaces -o json"),
    ("dataplane/queues.json", "dp queues -o json"),
    ("dataplane/buffers.json", "dp buffers -o json"),
    ("dataplane/drops.json", "dp drops -o json"),
    ("dataplane/services.json", "dp services -o json"),
    ("dataplane/tunnels.json", "dp tunnels -o json"),
    ("dataplane/wireguard.json", "wg show -o json"),
    ("dataplane/routes.json", "dp fib show -o json"),
    ("dataplane/adjacencies.json", "dp adjacencies -o json"),
    ("dataplane/neighbours.json", "dp neighbours -o json"),
    ("dataplane/sessions.txt", "conntrack count --by state"),
    ("dataplane/staged.json", "policy staged -o json"),
    ("agent/config.json", "config show -o json"),
    ("agent/bgp.json", "bgp peers -o json"),
    ("agent/ipam.json", "ipam check -o json"),
    ("agent/nodes.json", "get nodes -o json"),
    ("agent/endpoints.json", "get workloadendpoints -A -o json"),
    ("agent/policies.json", "get networkpolicies -A -o json"),
    ("agent/global-policies.json", "get globalnetworkpolicies -o json"),
    ("flows/top.json", "flows top --limit 200 -o json"),
    ("flows/last.jsonl", "flows observe --last 2000 -o json"),
];

/// Bytes of one file at most.
const MOST: usize = 8 << 20;

/// Writes the archive.
pub fn collect(global: &Global, args: &DiagCollect, out: &mut Output) -> Outcome {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let path = args.file.clone().unwrap_or_else(|| {
        let at = utc(now).unwrap_or_default().replace(':', "");
        PathBuf::from(format!("margay-diag-{at}.tar"))
    });
    let unwritable = |error: io::Error| {
        let problem = format!("cannot write {}", path.display());
        Failure::new(Code::Failed, problem, error.to_string(), "name another file with -f")
    };
    // For its owner's eyes, whatever the umask.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(unwritable)?;
    let mut archive = tar::Builder::new(file);
    let mut failed = 0;
    for (name, line) in FILES {
        let (text, went_well) = answer(global, line);
        failed += usize::from(!went_well);
        add(&mut archive, name, &redacted(&text), now).map_err(unwritable)?;
    }
    archive.finish().map_err(unwritable)?;
    writeln!(
        out,
        "{}: {} files, {failed} of which say why they could not be had",
        path.display(),
        FILES.len()
    )?;
    Ok(if failed == FILES.len() { Code::Unreachable } else { Code::Ok })
}

/// What a command prints, and whether it went well.
fn answer(global: &Global, line: &str) -> (String, bool) {
    let program = match env::current_exe() {
        Ok(program) => program,
        Err(error) => return (format!("this program cannot be run again: {error}\n"), false),
    };
    let mut command = Command::new(program);
    command.args(line.split(' ')).args(["--timeout", "10s", "--color", "never"]);
    command.arg("--agent").arg(&global.agent).arg("--dataplane").arg(&global.dataplane);
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return (format!("margayctl {line}: {error}\n"), false),
    };
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if text.len() > MOST {
        let cut = text.floor_char_boundary(MOST);
        text.truncate(cut);
        text.push_str("\n... cut here\n");
    }
    // Problems that a check has found are what it was asked for.
    let went_well = matches!(output.status.code(), Some(0 | 6));
    if !went_well {
        text.push_str(&format!("margayctl {line}: {}\n", String::from_utf8_lossy(&output.stderr)));
    }
    (text, went_well)
}

fn add(archive: &mut tar::Builder<File>, name: &str, text: &str, now: u64) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(now);
    archive.append_data(&mut header, format!("margay-diag/{name}"), text.as_bytes())
}

/// Without keys (32 bytes or more in base64 or hex), and without what stands behind a name like a secret's.
fn redacted(text: &str) -> String {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-' | '.');
    let mut result = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if let Some((name, _)) = line.split_once(':').filter(|(name, _)| names_a_secret(name)) {
            result.push_str(name);
            result.push_str(": \"<redacted>\"");
            let end = line.trim_end();
            result.push_str(if end.ends_with(',') { ",\n" } else { "\n" });
            continue;
        }
        let mut rest = line;
        while let Some(start) = rest.find(is_token) {
            let (before, token) = rest.split_at(start);
            let end = token.find(|c: char| !is_token(c)).unwrap_or(token.len());
            result.push_str(before);
            result.push_str(if is_key(&token[..end]) { "<redacted>" } else { &token[..end] });
            rest = &token[end..];
        }
        result.push_str(rest);
    }
    result
}

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A name, not a sentence or a line of JSON that begins otherwise.
    let last = name.rsplit(['{', ',', '"', ' ']).find(|part| !part.is_empty()).unwrap_or_default();
    ["password", "secret", "token", "privatekey", "private_key", "presharedkey"]
        .iter()
        .any(|word| last.ends_with(word))
}

/// 32 bytes in base64, or in hex.
fn is_key(token: &str) -> bool {
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/');
    let base64 = token.len() == 44 && token.ends_with('=') && token[..43].chars().all(base64);
    base64 || (token.len() >= 64 && token.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_secrets_are_blacked_out_and_nothing_else_is() {
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        let hex = "0123456789abcdef".repeat(4);
        let text = format!(
            "{{\n  \"publicKey\": \"{key}\",\n  \"name\": \"kube-system/coredns-5d78c9869d-abcde\",\n  \"password\": \"x y\",\n  \
             \"address\": \"fd00::1\"\n}}\npeer {key} at 10.0.0.1:51820 {hex}\ntoken: abc\nthe secret of it: patience\n"
        );
        let expected = "{\n  \"publicKey\": \"<redacted>\",\n  \"name\": \"kube-system/coredns-5d78c9869d-abcde\",\n  \
             \"password\": \"<redacted>\",\n  \"address\": \"fd00::1\"\n}\npeer <redacted> at 10.0.0.1:51820 <redacted>\n\
             token: \"<redacted>\"\nthe secret of it: patience\n";
        assert_eq!(redacted(&text), expected);
    }
}
