//! The text of a filter: words, terms, and what is wrong with them.

use super::{Filter, Side, State, Term};
use crate::net::{Addr, PortRange, Prefix, Proto};

/// Parentheses inside each other at most.
const MAX_DEPTH: usize = 16;

/// What is wrong with the text of a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}; {remedy}", place(*.at, .token))]
pub struct FilterError {
    /// Where it is, in bytes from the beginning.
    pub at: usize,
    /// What stands there; empty: the end.
    pub token: String,
    /// What is wrong with it.
    pub why: String,
    /// What to write instead.
    pub remedy: String,
    /// It names an endpoint that is not there. Nothing else is wrong.
    pub missing: bool,
}

fn place(at: usize, token: &str) -> String {
    match token {
        "" => "at its end".to_owned(),
        _ => format!("column {}, {token:?}", at + 1),
    }
}

/// The term that a text stands for, and how many there are in it.
pub(super) fn parse(
    text: &str,
    endpoint: &dyn Fn(&str) -> Option<Vec<Prefix>>,
) -> Result<(Term, usize), FilterError> {
    if text.len() > Filter::MAX_TEXT {
        return Err(FilterError {
            at: Filter::MAX_TEXT,
            token: "...".into(),
            why: format!("a filter of {} bytes", text.len()),
            remedy: format!("write at most {}", Filter::MAX_TEXT),
            missing: false,
        });
    }
    let mut parser = Parser { words: words(text), next: 0, end: text.len(), terms: 0, last: None, endpoint };
    if parser.words.is_empty() {
        return Ok((Term::Everything, 1));
    }
    let root = parser.expression(0)?;
    match parser.word() {
        None => Ok((root, parser.terms)),
        Some(")") => Err(parser.wrong("no parenthesis is open", "remove it, or write ( before")),
        Some(_) => Err(parser.wrong("it follows a whole term", "write and, or or, before it")),
    }
}

/// What a value without a keyword takes from the one before it.
#[derive(Clone, Copy)]
enum Keyword {
    Host(Side),
    Net(Side),
    Endpoint(Side),
    Port(Side),
    PortRange(Side),
    Proto,
    State,
}

struct Parser<'a> {
    /// With the place each has in the text.
    words: Vec<(usize, &'a str)>,
    next: usize,
    end: usize,
    terms: usize,
    last: Option<Keyword>,
    endpoint: &'a dyn Fn(&str) -> Option<Vec<Prefix>>,
}

const KEYWORDS: &str = "host, net, port, portrange, src, dst, endpoint, state, proto, tcp, udp, icmp, icmp6, \
                        sctp, ip, ip6, nat, not or a parenthesis";

impl<'a> Parser<'a> {
    fn expression(&mut self, depth: usize) -> Result<Term, FilterError> {
        let mut term = self.factor(depth)?;
        loop {
            let all = match self.word() {
                Some("and" | "&&") => true,
                Some("or" | "||") => false,
                _ => return Ok(term),
            };
            self.next += 1;
            let next = self.factor(depth)?;
            term = match (all, term) {
                (true, Term::All(mut terms)) => {
                    terms.push(next);
                    Term::All(terms)
                }
                (false, Term::Some(mut terms)) => {
                    terms.push(next);
                    Term::Some(terms)
                }
                (true, term) => Term::All(vec![term, next]),
                (false, term) => Term::Some(vec![term, next]),
            };
        }
    }

    fn factor(&mut self, depth: usize) -> Result<Term, FilterError> {
        let mut negated = false;
        while let Some("not" | "!") = self.word() {
            negated = !negated;
            self.next += 1;
        }
        let term = if self.word() == Some("(") {
            if depth == MAX_DEPTH {
                let why = format!("more than {MAX_DEPTH} parentheses inside each other");
                return Err(self.wrong(why, "write it flatter"));
            }
            self.next += 1;
            let inner = self.expression(depth + 1)?;
            if self.word() != Some(")") {
                return Err(self.wrong("a parenthesis is open", "write and, or, or ) here"));
            }
            self.next += 1;
            inner
        } else {
            self.term()?
        };
        Ok(if negated { Term::Not(Box::new(term)) } else { term })
    }

    fn term(&mut self) -> Result<Term, FilterError> {
        self.terms += 1;
        if self.terms > Filter::MAX_TERMS {
            let why = format!("more than {} terms", Filter::MAX_TERMS);
            return Err(self.wrong(why, "ask in several filters, or by net and portrange"));
        }
        let Some(word) = self.word() else {
            return Err(self.wrong("a term is missing", format!("write {KEYWORDS}")));
        };
        let term = match word {
            "ip" => Term::Version4(true),
            "ip6" => Term::Version4(false),
            "tcp" => Term::Proto(Proto::TCP),
            "udp" => Term::Proto(Proto::UDP),
            "udplite" => Term::Proto(Proto::UDPLITE),
            "icmp" => Term::Proto(Proto::ICMP),
            "icmp6" | "icmpv6" => Term::Proto(Proto::ICMP6),
            "sctp" => Term::Proto(Proto::SCTP),
            "nat" => Term::Translated,
            _ => return self.qualified(),
        };
        self.next += 1;
        match (&term, self.word()) {
            (Term::Proto(proto), Some("port" | "portrange")) if !proto.has_ports() => {
                Err(self.wrong(format!("{word} has no ports"), "remove it, or name another protocol"))
            }
            (
                Term::Proto(_) | Term::Version4(_),
                Some("src" | "dst" | "host" | "net" | "port" | "portrange" | "endpoint"),
            )
            | (Term::Version4(_), Some("proto" | "tcp" | "udp" | "sctp" | "icmp" | "icmp6")) => {
                Ok(Term::All(vec![term, self.term()?]))
            }
            _ => Ok(term),
        }
    }

    /// A keyword and its value, or a value for the keyword before.
    fn qualified(&mut self) -> Result<Term, FilterError> {
        let side = self.side();
        let any = side.unwrap_or(Side::Any);
        let keyword = match (self.word(), side) {
            (Some("host"), _) => Keyword::Host(any),
            (Some("net"), _) => Keyword::Net(any),
            (Some("endpoint"), _) => Keyword::Endpoint(any),
            (Some("port"), _) => Keyword::Port(any),
            (Some("portrange"), _) => Keyword::PortRange(any),
            (Some("proto"), None) => Keyword::Proto,
            (Some("state"), None) => Keyword::State,
            (Some(word), _) => {
                let keyword = self.unsaid(word, side)?;
                return self.value(keyword);
            }
            (None, _) => return Err(self.half_said()),
        };
        self.next += 1;
        self.last = Some(keyword);
        self.value(keyword)
    }

    /// `src`, `dst`, or either.
    fn side(&mut self) -> Option<Side> {
        let side = match self.word()? {
            "src" => Side::Source,
            "dst" => Side::Destination,
            _ => return None,
        };
        self.next += 1;
        let rest = self.words.get(self.next..).unwrap_or_default();
        let (other, of) = match side {
            Side::Source => ("dst", "src"),
            _ => ("src", "dst"),
        };
        if let [(_, "or" | "||"), (_, second), ..] = rest
            && (*second == other || *second == of)
        {
            self.next += 2;
            return Some(if *second == other { Side::Any } else { side });
        }
        Some(side)
    }

    /// The keyword of a value that has none in front.
    fn unsaid(&self, word: &str, side: Option<Side>) -> Result<Keyword, FilterError> {
        let any = side.unwrap_or(Side::Any);
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        match (side, self.last) {
            (None, Some(last @ (Keyword::Host(_) | Keyword::Net(_)))) if looks_like_address(word) => Ok(last),
            _ if looks_like_address(word) && word.contains('/') => Ok(Keyword::Net(any)),
            _ if looks_like_address(word) => Ok(Keyword::Host(any)),
            (None, Some(last @ Keyword::Endpoint(_))) if word.contains('/') => Ok(last),
            (None, Some(last @ Keyword::State)) if State::NAMES.contains(&word) => Ok(last),
            (None, Some(last @ (Keyword::Port(_) | Keyword::PortRange(_) | Keyword::Proto))) if number => {
                Ok(last)
            }
            (None, _) => Err(self.wrong("it is no word of a filter", format!("write {KEYWORDS}"))),
            (Some(_), _) => Err(self.half_said()),
        }
    }

    fn half_said(&self) -> FilterError {
        let remedy = "write host, net, port, portrange or endpoint, and its value, or an address";
        self.wrong("src and dst are of an address or a port", remedy)
    }

    fn value(&mut self, of: Keyword) -> Result<Term, FilterError> {
        let Some(word) =
            self.word().filter(|word| !matches!(*word, "(" | ")" | "!" | "and" | "or" | "&&" | "||"))
        else {
            let (what, example) = of.wants();
            return Err(self.wrong(format!("{what} is missing"), format!("write it as in {example}")));
        };
        let term = match of {
            Keyword::Host(side) => word
                .parse::<Addr>()
                .map(|addr| Term::Address(side, [Prefix::host(addr)].into()))
                .map_err(|_| match word.contains('/') {
                    true => ("an address has no length".to_owned(), "write net in place of host".to_owned()),
                    false => of.expected(),
                }),
            Keyword::Net(side) => word
                .parse::<Prefix>()
                .map(|net| Term::Address(side, [net].into()))
                .map_err(|error| (error.to_string(), "write it as in 10.0.0.0/8".to_owned())),
            Keyword::Endpoint(side) => match (self.endpoint)(word) {
                Some(nets) => Ok(Term::Address(side, nets.into())),
                None => {
                    let why = "there is no endpoint of this name on this node";
                    let error =
                        self.wrong(why, "write NAMESPACE/NAME, as `margayctl status -o wide` lists them");
                    return Err(FilterError { missing: true, ..error });
                }
            },
            Keyword::Port(side) => {
                word.parse().map(|port| Term::Port(side, PortRange::one(port))).map_err(|_| {
                    match word.contains('-') {
                        true => {
                            ("a port is one number".to_owned(), "write portrange in place of port".to_owned())
                        }
                        false => of.expected(),
                    }
                })
            }
            Keyword::PortRange(side) => {
                let ends = word.split_once('-').and_then(|(first, last)| {
                    Some(PortRange { first: first.parse().ok()?, last: last.parse().ok()? })
                });
                match ends {
                    Some(range) if range.first > range.last => {
                        let remedy = format!("write {}-{}", range.last, range.first);
                        Err(("its first port is above its last".to_owned(), remedy))
                    }
                    ends => ends.map(|range| Term::Port(side, range)).ok_or_else(|| of.expected()),
                }
            }
            Keyword::Proto => word
                .parse()
                .map(Term::Proto)
                .map_err(|error: String| (error, "write it as in proto tcp, proto 47".to_owned())),
            Keyword::State => {
                State::NAMES.iter().find(|name| **name == word).map(|name| Term::State(name)).ok_or_else(
                    || {
                        (
                            "no session is ever in such a state".to_owned(),
                            format!("write one of {}", State::NAMES.join(", ")),
                        )
                    },
                )
            }
        };
        let term = term.map_err(|(why, remedy)| self.wrong(why, remedy))?;
        self.next += 1;
        Ok(term)
    }

    fn word(&self) -> Option<&'a str> {
        self.words.get(self.next).map(|(_, word)| *word)
    }

    /// An error about the next word.
    fn wrong(&self, why: impl Into<String>, remedy: impl Into<String>) -> FilterError {
        let (at, token) = self.words.get(self.next).copied().unwrap_or((self.end, ""));
        FilterError { at, token: token.to_owned(), why: why.into(), remedy: remedy.into(), missing: false }
    }
}

impl Keyword {
    /// What its value is, and how it looks.
    const fn wants(self) -> (&'static str, &'static str) {
        match self {
            Self::Host(_) => ("an address", "host 10.0.0.1"),
            Self::Net(_) => ("a prefix", "net 10.0.0.0/8"),
            Self::Endpoint(_) => ("the name of an endpoint", "endpoint shop/web"),
            Self::Port(_) => ("a port from 0 to 65535", "port 80"),
            Self::PortRange(_) => ("a range of ports", "portrange 8000-8099"),
            Self::Proto => ("a protocol", "proto tcp, proto 47"),
            Self::State => ("a state", "state established"),
        }
    }

    fn expected(self) -> (String, String) {
        let (what, example) = self.wants();
        (format!("it is not {what}"), format!("write it as in {example}"))
    }
}

/// Words with their places. Parentheses, `!`, `&&` and `||` are words of their own, wherever they stand.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = vec![];
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let ends = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '!' | '&' | '|');
        let length = match c {
            _ if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '&' | '|' if rest.starts_with("&&") || rest.starts_with("||") => 2,
            _ if ends(c) => 1,
            _ => rest.find(ends).unwrap_or(rest.len()),
        };
        words.push((at, &rest[..length]));
        at += length;
    }
    words
}

/// Digits with dots, or hexadecimal with colons; perhaps a length.
fn looks_like_address(word: &str) -> bool {
    let addr = word.split_once('/').map_or(word, |(addr, _)| addr);
    addr.parse::<Addr>().is_ok()
        || addr.contains('.') && addr.chars().all(|c| c.is_ascii_digit() || c == '.')
        || addr.contains(':') && addr.chars().all(|c| c.is_ascii_hexdigit() || c == ':')
}
