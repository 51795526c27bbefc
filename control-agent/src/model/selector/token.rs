//! Text into tokens.
//!
//! Operators that are words are known only after a label, so any word may be a label:
//! `contains contains "contains"`.

/// The longest label name, in bytes.
const MAX_LABEL: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Label(&'a str),
    String(&'a str),
    /// `has(label)`, whole.
    Has(&'a str),
    All,
    Global,
    Equals,
    NotEquals,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
    Not,
    And,
    Or,
    OpenParen,
    CloseParen,
    OpenBrace,
    CloseBrace,
    Comma,
    End,
}

/// What is wrong, and at which byte.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) at: usize,
    pub(super) message: String,
}

/// Reads one token after another; after [`Token::End`] only that.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
    after_label: bool,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, after_label: false }
    }

    /// The next token, and the byte at which it starts.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'a>), Problem> {
        self.skip_blanks();
        let start = self.at;
        let token = self.read()?;
        self.after_label = matches!(token, Token::Label(_));
        Ok((start, token))
    }

    fn read(&mut self) -> Result<Token<'a>, Problem> {
        let Some(first) = self.rest().chars().next() else { return Ok(Token::End) };
        let single = match first {
            '(' => Some(Token::OpenParen),
            ')' => Some(Token::CloseParen),
            '{' => Some(Token::OpenBrace),
            '}' => Some(Token::CloseBrace),
            ',' => Some(Token::Comma),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return Ok(token);
        }
        match first {
            '"' | '\'' => self.string(first),
            '=' if self.eat("==") => Ok(Token::Equals),
            '=' => Err(self.problem("a single '='; write '=='")),
            '!' if self.eat("!=") => Ok(Token::NotEquals),
            '!' => {
                self.at += 1;
                Ok(Token::Not)
            }
            '&' if self.eat("&&") => Ok(Token::And),
            '&' => Err(self.problem("a single '&'; write '&&'")),
            '|' if self.eat("||") => Ok(Token::Or),
            '|' => Err(self.problem("a single '|'; write '||'")),
            _ if self.after_label => self.word_operator(),
            _ => self.word(first),
        }
    }

    fn string(&mut self, quote: char) -> Result<Token<'a>, Problem> {
        let body = &self.rest()[1..];
        let Some(len) = body.find(quote) else {
            return Err(self.problem(&format!("a string that is never closed; end it with {quote}")));
        };
        self.at += len + 2;
        Ok(Token::String(&body[..len]))
    }

    fn word_operator(&mut self) -> Result<Token<'a>, Problem> {
        let start = self.at;
        let token = if self.eat("contains") {
            Some(Token::Contains)
        } else if self.eat("starts") {
            self.eat_after_blanks("with").then_some(Token::StartsWith)
        } else if self.eat("ends") {
            self.eat_after_blanks("with").then_some(Token::EndsWith)
        } else if self.eat("not") {
            self.eat_after_blanks("in").then_some(Token::NotIn)
        } else if self.eat("in") {
            Some(Token::In)
        } else {
            None
        };
        token.ok_or_else(|| Problem { at: start, message: EXPECTED_OPERATOR.to_owned() })
    }

    fn word(&mut self, first: char) -> Result<Token<'a>, Problem> {
        if self.eat("has(") {
            self.skip_blanks();
            let Some(label) = self.label()? else {
                return Err(self.problem("has() needs the name of a label, as in has(app)"));
            };
            return if self.eat_after_blanks(")") {
                Ok(Token::Has(label))
            } else {
                Err(self.problem("has() takes one label and then ')'"))
            };
        }
        for (name, token) in [("all(", Token::All), ("global(", Token::Global)] {
            if self.eat(name) {
                return if self.eat_after_blanks(")") {
                    Ok(token)
                } else {
                    Err(self.problem(&format!("{name}) takes nothing between its parentheses")))
                };
            }
        }
        match self.label()? {
            Some(label) => Ok(Token::Label(label)),
            None => Err(self.problem(&format!(
                "{first:?} cannot stand here; labels are letters, digits and _ . / -, values are quoted"
            ))),
        }
    }

    fn label(&mut self) -> Result<Option<&'a str>, Problem> {
        let rest = self.rest();
        let in_label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-');
        let len = rest.bytes().position(|b| !in_label(b)).unwrap_or(rest.len());
        if len > MAX_LABEL {
            return Err(self.problem(&format!("a label name of {len} bytes; the longest is {MAX_LABEL}")));
        }
        self.at += len;
        Ok((len > 0).then(|| &rest[..len]))
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn eat_after_blanks(&mut self, wanted: &str) -> bool {
        self.skip_blanks();
        self.eat(wanted)
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn problem(&self, message: &str) -> Problem {
        Problem { at: self.at, message: message.to_owned() }
    }
}

pub(super) const EXPECTED_OPERATOR: &str = "a label needs a test after it: == != in, not in, contains, starts with \
     or ends with; has(label) asks only whether it is there";
