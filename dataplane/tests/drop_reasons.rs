//! `docs/drop-reasons.md` is made from the reasons. `UPDATE=1 cargo test` writes it anew.
#![allow(missing_docs)]

use margay_dataplane::packet::DropReason;
use std::path::Path;

#[test]
fn the_page_has_every_reason_with_its_sentence() {
    let mut page = String::from(
        "# Reasons to drop\n\nEvery packet that is dropped is counted under one of these. `margayctl dp drops` has the counts and the last packet of\n\
         each, `margayctl dp trace --dropped-only` the way of the next ones, `margay_dp_drops_total{reason}` ([metrics](metrics.md)) their rates.\n\n\
         | reason | what happened |\n|---|---|\n",
    );
    for reason in DropReason::ALL {
        // A bar would end the cell.
        page.push_str(&format!("| `{}` | {} |\n", reason.name(), reason.sentence().replace('|', "\\|")));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/drop-reasons.md");
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(path, page).unwrap();
    }
    let is = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(is == page, "docs/drop-reasons.md is not what the reasons say; UPDATE=1 writes it anew");
}
