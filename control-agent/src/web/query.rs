//! What is behind the question mark: terms that are known, once each, and of bounded length.

use crate::flows::Filter;
use margay_api::control::v1::FlowFilter;
use percent_encoding::percent_decode_str;
use std::{collections::BTreeMap, ops::RangeInclusive};

/// Terms of one request.
const TERMS: usize = 16;
/// Bytes of a value: a namespace and a name, and some to spare.
const VALUE: usize = 600;

/// The terms that nobody has asked for yet.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `a=1&b=2`, as forms write it.
    ///
    /// # Errors
    /// A sentence that names the term and the remedy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = BTreeMap::new();
        for term in text.split('&').filter(|term| !term.is_empty()) {
            let (name, value) = term.split_once('=').unwrap_or((term, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if value.len() > VALUE {
                return Err(format!("{name}: longer than {VALUE} bytes"));
            }
            if terms.len() == TERMS {
                return Err(format!("more than {TERMS} terms"));
            }
            if let Some(before) = terms.insert(name.clone(), value) {
                return Err(format!("{name}: given twice, as {before:?} before"));
            }
        }
        Ok(Self(terms))
    }

    /// A text; an empty one is the same as none.
    pub fn text(&mut self, name: &str) -> String {
        self.0.remove(name).unwrap_or_default()
    }

    /// A number; none: the first of what is possible.
    ///
    /// # Errors
    /// A sentence that names the term, the value and the remedy.
    pub fn number(&mut self, name: &str, possible: RangeInclusive<u64>) -> Result<u64, String> {
        let text = self.text(name);
        let (least, most) = possible.clone().into_inner();
        if text.is_empty() {
            return Ok(least);
        }
        let number = text.parse().ok().filter(|number| possible.contains(number));
        number.ok_or_else(|| format!("{name}: {text:?} is none: write a number from {least} to {most}"))
    }

    /// None is 0.
    fn port(&mut self) -> Result<u32, String> {
        let text = self.text("port");
        if text.is_empty() {
            return Ok(0);
        }
        let port = text.parse::<u16>().ok().filter(|port| *port != 0);
        let wrong = || format!("port: {text:?} is none: write a number from 1 to 65535");
        port.map(u32::from).ok_or_else(wrong)
    }

    /// Which flows.
    ///
    /// # Errors
    /// A sentence that names the term, the value and the remedy.
    pub fn filter(&mut self) -> Result<Filter, String> {
        Filter::read(Some(&FlowFilter {
            verdict: self.text("verdict"),
            from: self.text("from"),
            to: self.text("to"),
            policy: self.text("policy"),
            reason: self.text("reason"),
            protocol: self.text("protocol"),
            port: self.port()?,
        }))
    }

    /// All terms have been asked for.
    ///
    /// # Errors
    /// A sentence that names one that was not.
    pub fn end(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{name}: there is no such term here")),
        }
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned());
    decoded.map_err(|_| format!("{text:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let read = Query::parse(text).and_then(|mut query| {
            query.filter()?;
            query.number("seconds", 60..=3600)?;
            query.end()
        });
        read.err().unwrap_or_default()
    }

    #[test]
    fn terms_are_decoded_and_each_is_known_and_bounded() {
        let mut query = Query::parse("from=shop%2Fweb+1&seconds=90&to=&x").unwrap();
        assert_eq!((query.text("from"), query.text("to")), ("shop/web 1".to_owned(), String::new()));
        assert_eq!((query.number("seconds", 60..=3600), query.number("limit", 7..=9)), (Ok(90), Ok(7)));
        assert_eq!(query.end(), Err("x: there is no such term here".to_owned()));

        assert_eq!(error("verdict=deny&from=shop/&to=10.0.0.0/8&policy=p&reason=r&protocol=udp&port=53"), "");
        assert_eq!(error("port=http"), "port: \"http\" is none: write a number from 1 to 65535");
        assert_eq!(error("port=0"), "port: \"0\" is none: write a number from 1 to 65535");
        assert_eq!(error(""), "");
        assert!(error("verdict=no").starts_with("verdict: \"no\""));
        assert!(error("protocol=tpc").starts_with("protocol: \"tpc\" is not a protocol"));
        assert!(error("from=a/b/c").starts_with("from: "));
        assert_eq!(error("seconds=5"), "seconds: \"5\" is none: write a number from 60 to 3600");
        assert_eq!(error("from=a&from=b"), "from: given twice, as \"a\" before");
        assert_eq!(error("from=%ff"), "\"%ff\" is not UTF-8");
        assert_eq!(error(&format!("from={}", "x".repeat(601))), "from: longer than 600 bytes");
        let many: Vec<_> = (0..17).map(|number| format!("t{number}=1")).collect();
        assert_eq!(error(&many.join("&")), "more than 16 terms");
    }
}
