//! The page in a browser: what is seen, filtered, pointed at, and what happens when the agent is away.

use super::{
    browser::Browser,
    node::{Shown, counts, record},
};
use serde_json::json;
use std::{env, path::PathBuf};

const WIDE: (u32, u32) = (1440, 1000);

/// Rows of the body of a table.
fn rows(of: &str) -> String {
    format!("document.querySelectorAll('{of} tbody tr').length")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_the_node() {
    let Some(mut browser) = Browser::start() else { return };
    let mut shown = Shown::start(counts()).await;
    let url = format!("http://{}/", shown.at);

    // Nothing yet, and so it is said.
    browser.open(&url, WIDE, "light");
    browser.until("document.querySelector('#flows .message').textContent.startsWith('No flow yet')");
    browser.until("document.querySelector('#graph .message').textContent.startsWith('Nobody has talked')");
    browser.until("document.querySelector('#policies .message').textContent.startsWith('No policy')");

    // What comes is shown, without a reload. A name that would be markup is a name.
    let mut strange = record(4002, "deny");
    strange.egress.as_mut().unwrap().policy = "shop/<b id=bold>bold</b>".into();
    let mut other = record(4003, "deny");
    other.protocol = 17;
    shown.fake.tell_flows(vec![record(4000, "allow"), record(4001, "deny"), strange, other], 3).await;
    browser.until(&format!("{} === 4", rows("#flows")));
    let told = browser.eval(
        "[...document.querySelectorAll('#flows tbody tr')].map((row) => [row.className, row.innerText.replace(/\\s+/g, ' ')])",
    );
    let text = |row: usize| told[row][1].as_str().unwrap().to_owned();
    assert_eq!([&told[0][0], &told[1][0], &told[3][0]], ["deny", "deny", "allow"], "the newest on top");
    for part in
        ["began allow", "shop/web 10.65.0.1:4000", "partners 10.96.0.1:80 = 203.0.113.5:8080", "3.81 MiB"]
    {
        assert!(text(3).contains(part), "{part} in {}", text(3));
    }
    for part in ["refused DENY", "policy-denied · egress default shop/web rule 2"] {
        assert!(text(2).contains(part), "{part} in {}", text(2));
    }
    assert!(text(1).contains("shop/<b id=bold>bold</b> rule 2"), "{}", text(1));
    assert_eq!(browser.eval("document.querySelector('#bold')"), json!(null));
    assert!(
        browser
            .eval("document.querySelector('#flows-note').textContent")
            .as_str()
            .unwrap()
            .contains("3 lost")
    );

    // All the rest of the node; a page that is opened anew asks for all of it at once.
    browser.open(&url, WIDE, "light");
    browser.until(&format!(
        "{} === 2 && {} === 2",
        rows("#drops"),
        "document.querySelectorAll('#workers tbody tr').length"
    ));
    browser.until(&format!("{} === 6", rows("#nodes")));
    let drops = browser.eval("document.querySelector('#drops tbody').innerText");
    let drops = drops.as_str().unwrap();
    for part in
        ["18,600", "A policy denied the packet", "18,000 by default shop/db rule 2, ingress of shop/db"]
    {
        assert!(drops.contains(part), "{part} in {drops}");
    }
    browser.until("document.querySelector('#health').textContent.includes('not well: endpoint shop/web')");
    browser.until(&format!("{} === 3", rows("#policies")));
    browser.until("document.querySelectorAll('#picture .node').length === 2");
    assert_eq!(browser.eval("document.querySelectorAll('#picture .edge.deny').length"), 1);
    let edge = browser.eval("document.querySelector('#picture .edge.deny title').textContent");
    assert_eq!(edge, "shop/web → partners: DENY, 6 packets refused");
    pictures(&mut browser);

    // By keyboard: a name of the graph becomes the filter, and its own address the page's.
    browser.eval(
        "[...document.querySelectorAll('#picture .node')].find((of) => of.dataset.term === 'to').focus()",
    );
    browser.until("document.querySelector('#detail').textContent.includes('partners')");
    browser.press("Enter", "\r");
    browser.until(
        "document.querySelector('[name=to]').value === 'partners' && location.search === '?to=partners'",
    );
    browser.until(&format!("{} === 4", rows("#flows")));
    let set = |name: &str, value: &str| {
        format!(
            "{{ const field = document.querySelector('[name={name}]'); field.value = '{value}';
                field.dispatchEvent(new Event('input', {{ bubbles: true }})); }}"
        )
    };
    browser.eval(&set("protocol", "udp"));
    browser.until(&format!("{} === 1", rows("#flows")));
    browser.eval(&set("protocol", "tpc"));
    browser.until("document.querySelector('#refused').textContent.includes('\"tpc\" is not a protocol')");
    browser.eval("document.querySelector('#filter [type=reset]').click()");
    browser.until(&format!("{} === 4 && document.querySelector('#refused').hidden", rows("#flows")));
    browser.eval(&set("verdict", "allow"));
    browser.until(&format!("{} === 1", rows("#flows")));
    browser.eval(&set("reason", "nobody-knows"));
    browser.until("document.querySelector('#flows .message').textContent === 'No flow that is kept is like the filter.'");
    browser.until("document.querySelector('#graph .message').textContent.includes('like the filter')");

    // A page that was opened with a filter has it.
    browser.open(&format!("{url}?verdict=deny"), WIDE, "light");
    browser.until(&format!("{} === 3", rows("#flows")));
    browser.eval("document.querySelector('#pause').click()");
    browser.until("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'");

    // The dataplane is away; then the agent, too; then it is back.
    shown.fake.stop();
    browser.until(
        "document.querySelector('#load .message').textContent.startsWith('The dataplane does not answer')",
    );
    shown.close().await;
    browser
        .until("!document.querySelector('#connection').hidden && document.body.classList.contains('lost')");
    let lost = browser.eval("document.querySelector('#connection').textContent");
    assert!(lost.as_str().unwrap().starts_with("The agent does not answer: trying again"), "{lost}");
    shown.open().await;
    browser
        .until("document.querySelector('#connection').hidden && !document.body.classList.contains('lost')");

    // Every field has a name for those who hear the page.
    let nameless = "[...document.querySelectorAll('input, select')].filter((of) => !of.labels.length).length";
    assert_eq!(browser.eval(nameless), 0);
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// For those who want to see it: in the folder that MARGAY_PICTURES names.
fn pictures(browser: &mut Browser) {
    let Some(folder) = env::var_os("MARGAY_PICTURES").map(PathBuf::from) else { return };
    for (name, size, scheme) in
        [("light", WIDE, "light"), ("dark", WIDE, "dark"), ("narrow", (420, 1800), "light")]
    {
        browser.look(size, scheme);
        browser.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
        browser.screenshot(&folder.join(format!("{name}.png")));
    }
    browser.look(WIDE, "light");
}
